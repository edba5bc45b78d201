// The ledger: what came in of each device and hour, and what became of it. And
// the dead letters: messages that could not be used, with their bytes.
import { useState } from 'preact/hooks'
import { get, post, query } from '../api'
import { go, may, state, useList, useLoad, useNames } from '../app'
import { Bars } from '../bars'
import { fullTime, num, now, time } from '../format'
import { t } from '../i18n'
import { balances, bars, hour, reasons, total, unheard, unstored, type Counts } from '../ledger'
import { refusal } from '../reasons'
import { Filters, Icon, Modal, Only, Paged, Search, Table, useBusy, Wait, Wrong } from '../ui'
import { href, withFilter } from '../url'
import type { Books, DeadLetter, LedgerRow, List, Replay } from '../types'
import { Letter } from './letters'
import { Sections } from './sections'

const ranges = { '24h': 24, '7d': 7 * 24, '30d': 30 * 24 } as const
const rangeNames = ['24h', '7d', '30d'] as const
const page = 200
const minute = 60_000

export function Ledger({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const device = q.get('device') ?? ''
  const range = rangeNames.find((r) => r === q.get('range')) ?? '24h'
  const all = q.get('rows') === 'all'
  const own = [Date.parse(q.get('from') ?? ''), Date.parse(q.get('to') ?? '')] as const
  const narrowed = own.every((x) => !Number.isNaN(x))
  const to = narrowed ? own[1] : Math.floor(now() / hour) * hour + hour
  const from = narrowed ? own[0] : to - ranges[range] * hour
  const asked = { device, from: new Date(from).toISOString(), to: new Date(to).toISOString() }
  const hours = useLoad('ledger by hour ' + JSON.stringify(asked), async (signal) => (await get<List<LedgerRow>>('/ledger' + query({ ...asked, by: 'hour' }), signal)).items, minute)
  // The last hours stay the same list when another hour begins.
  const rows = useList<LedgerRow>('/ledger', { ...asked, uneven: !all }, page, minute, narrowed ? undefined : `last ${range} ${device} ${all}`)
  const set = (name: string, value: string) => go('/ledger' + withFilter(search, name, value), true)
  const during = (a: number, b: number) => '/ledger' + withFilter(withFilter(search, 'from', new Date(a).toISOString()), 'to', new Date(b).toISOString())
  return (
    <>
      <div class="head">
        <h1>{t('nav.ledger')}</h1>
      </div>
      <Sections at="ledger" />
      <Filters>
        <Search value={device} label={t('le.device')} onChange={(v) => set('device', v)} />
        {narrowed ? (
          <Only off={() => go('/ledger' + withFilter(withFilter(search, 'from', ''), 'to', ''), true)}>
            {time(from)} – {time(to)}
          </Only>
        ) : (
          <div class="segments" role="group" aria-label={t('de.range')}>
            {rangeNames.map((r) => (
              <button type="button" key={r} aria-pressed={r === range} onClick={() => set('range', r === '24h' ? '' : r)}>
                {t(`de.r.${r}`)}
              </button>
            ))}
          </div>
        )}
        <label class="check">
          <input type="checkbox" checked={all} onChange={(e) => set('rows', e.currentTarget.checked ? 'all' : '')} />
          {t('le.all')}
        </label>
      </Filters>
      {hours.data === undefined ? (
        <Wait of={hours} />
      ) : (
        <>
          <section class="card">
            <Balance of={total(hours.data)} />
            {hours.data.length > 0 && <Bars bars={bars(hours.data, from, to)} names={[t('le.received'), t('le.unstored')]} label={t('le.chart')} to={during} />}
            {device !== '' && <Unheard of={unheard(hours.data, from, Math.min(to, Math.floor(now() / hour) * hour))} />}
          </section>
          {device === '' && !narrowed && !state.user?.area && <Compare from={asked.from} />}
        </>
      )}
      <h2 class="group">{t(all ? 'le.rows' : 'le.uneven')}</h2>
      <Paged of={rows} n={rows.items.length} none={t(all ? 'le.none' : 'le.noneUneven')}>
        <Rows of={rows.items} />
      </Paged>
    </>
  )
}

/** Balance is the sum of a time as the equation that it has to be. */
function Balance({ of: r }: { of: Counts }) {
  const part = (sign: string, name: string, n: number) => (
    <>
      <span class="quiet" aria-hidden="true">
        {sign}
      </span>
      <span class="term">
        <b class="num">{num(n)}</b>
        <span class="sub">{name}</span>
      </span>
    </>
  )
  return (
    <>
      <p class="balance">
        <span class="term">
          <b class="num">{num(r.received)}</b>
          <span class="sub">{t('le.received')}</span>
        </span>
        {part('=', t('le.stored'), r.stored)}
        {part('+', t('le.rejected'), r.rejected)}
        {part('+', t('le.duplicate'), r.duplicate)}
        {part('+', t('le.quarantined'), r.quarantined)}
      </p>
      <p class={balances(r) ? 'quiet' : 'wrong'}>
        <Icon name={balances(r) ? 'check' : 'warn'} size={16} /> {balances(r) ? t('le.balances', num(r.messages)) : t('le.unbalanced', num(r.received), num(r.stored + unstored(r)))}
      </p>
    </>
  )
}

function Unheard({ of }: { of: number[] }) {
  if (of.length === 0) return null
  return (
    <p>
      <Icon name="silent" size={16} /> {t('le.unheard', of.length)} <span class="quiet">{of.slice(0, 12).map((h) => time(h)).join(t('c.comma'))}{of.length > 12 && ' …'}</span>
    </p>
  )
}

function Rows({ of }: { of: LedgerRow[] }) {
  const name = useNames([...new Set(of.map((r) => r.device))].slice(0, 100))
  return (
    <Table kind="ledger" heads={[t('le.hour'), t('de.device'), t('le.received'), t('le.stored'), t('le.why')]} numbers={[2, 3]}>
      {of.map((r) => (
        <tr role="row" key={r.hour + r.device}>
          <td role="cell" class="nowrap">
            {time(r.hour)}
          </td>
          <td role="cell" class="c-main">
            {r.device === '' ? (
              <span class="quiet">{t('le.nobody')}</span>
            ) : (
              <a class="title" href={href(['devices', r.device])}>
                {name(r.device)}
              </a>
            )}
            {name(r.device) !== r.device && <span class="sub">{r.device}</span>}
          </td>
          <td role="cell" class="num">
            {num(r.received)}
            <span class="sub">{t('le.messages', num(r.messages))}</span>
          </td>
          <td role="cell" class="num">
            {num(r.stored)}
          </td>
          <td role="cell" class="c-why">
            <ul class="bare">
              {reasons(r).map((s) => (
                <li key={s}>{s}</li>
              ))}
            </ul>
            {r.rejected + r.quarantined > 0 && (
              <a class="small" href={href(['deadletters'], { device: r.device, open: 'all' })}>
                {t('le.letters')}
              </a>
            )}
          </td>
        </tr>
      ))}
    </Table>
  )
}

/** Compare reads the log again and compares it with ledger and time series. */
function Compare({ from }: { from: string }) {
  const [books, setBooks] = useState<Books>()
  const { busy, error, run } = useBusy()
  const differences = books?.differences ?? []
  const notes = books?.notes ?? []
  const name = useNames(differences.map((d) => d.device))
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('bo.title')}</h2>
        <button type="button" disabled={busy} onClick={() => run(async () => setBooks(await get<Books>('/ledger/audit' + query({ from }))))}>
          {t(busy ? 'bo.busy' : 'bo.do')}
        </button>
      </div>
      <p class="quiet">{t('bo.text')}</p>
      <Wrong text={error} />
      {books !== undefined && (
        <div role="status">
          <p>
            <Icon name={books.found === 0 ? 'check' : 'warn'} size={16} />{' '}
            {books.found === 0 ? t('bo.agree', num(books.messages), num(books.readings), num(books.points)) : t('bo.differ', num(books.found))}{' '}
            <span class="quiet">
              {fullTime(books.from)} – {fullTime(books.to)}
            </span>
          </p>
          <ul class="bare lines">
            {differences.map((d) => (
              <li key={`${d.book} ${d.device} ${d.hour} ${d.metric}`}>
                <span class="grow">
                  <a href={href(['devices', d.device])}>{name(d.device)}</a> · {time(d.hour)} {d.metric}
                  <span class="sub">{d.book === 'series' ? t('bo.series', num(d.expected - d.found)) : t('bo.ledger', num(d.expected), num(d.found))}</span>
                  <span class="sub">{d.text}</span>
                </span>
              </li>
            ))}
          </ul>
          {notes.length > 0 && (
            <>
              <h3>{t('bo.notes')}</h3>
              <ul>
                {notes.map((n) => (
                  <li key={n} class="quiet">
                    {n}
                  </li>
                ))}
              </ul>
            </>
          )}
        </div>
      )}
    </section>
  )
}

export function DeadLetters({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const device = q.get('device') ?? ''
  const open = q.get('open') !== 'all'
  const [asking, setAsking] = useState(false)
  const loaded = useList<DeadLetter>('/deadletters', { device, open }, page, minute)
  const name = useNames([...new Set(loaded.items.map((l) => l.device))].slice(0, 100))
  const set = (name: string, value: string) => go('/deadletters' + withFilter(search, name, value), true)
  return (
    <>
      <div class="head">
        <h1>{t('nav.deadletters')}</h1>
        {may('devices') && (
          <button type="button" class="end" aria-haspopup="dialog" onClick={() => setAsking(true)}>
            {t('dl.replay')}
          </button>
        )}
      </div>
      <Sections at="deadletters" />
      <p class="lead quiet">{t('dl.text')}</p>
      <Filters>
        <Search value={device} label={t('le.device')} onChange={(v) => set('device', v)} />
        <label class="check">
          <input type="checkbox" checked={!open} onChange={(e) => set('open', e.currentTarget.checked ? 'all' : '')} />
          {t('dl.all')}
        </label>
      </Filters>
      <Paged of={loaded} n={loaded.items.length} none={t(open ? 'dl.noneOpen' : 'dl.none')}>
        <ul class="bare audit">
          {loaded.items.map((x) => (
            <li class="card" key={`${x.position} ${x.stage} ${x.received}`}>
              <Letter of={x} name={name(x.device)} />
            </li>
          ))}
        </ul>
      </Paged>
      {asking && <Again device={device} name={name} onClose={() => setAsking(false)} onDone={loaded.again} />}
    </>
  )
}

/** Again brings dead letters in again, and says what became of them. */
function Again({ device, name, onClose, onDone }: { device: string; name: (id: string) => string; onClose: () => void; onDone: () => void }) {
  const [got, setGot] = useState<Replay>()
  const { busy, error, run } = useBusy()
  return (
    <Modal title={t('dl.replay')} held={busy} onClose={onClose}>
      {got === undefined ? (
        <p>{device === '' ? t('dl.replayAll') : t('dl.replayOne', name(device))}</p>
      ) : (
        <div role="status">
          <p>{t('dl.did', num(got.replayed), num(got.failing))}</p>
          {got.first.length > 0 && (
            <ul class="bare lines">
              {got.first.map((x) => (
                <li key={`${x.position} ${x.stage}`}>
                  <span class="grow">
                    {name(x.device)}
                    <span class="sub">{refusal(x.reason)}</span>
                  </span>
                </li>
              ))}
            </ul>
          )}
        </div>
      )}
      <Wrong text={error} />
      <footer>
        <button type="button" onClick={onClose}>
          {t(got === undefined ? 'c.cancel' : 'c.close')}
        </button>
        {got === undefined && (
          <button
            type="button"
            class="primary"
            autofocus
            disabled={busy}
            onClick={() =>
              run(async () => {
                setGot(await post<Replay>('/deadletters/replay', { device: device || undefined }))
                onDone()
              })
            }
          >
            {t('dl.replay')}
          </button>
        )}
      </footer>
    </Modal>
  )
}
