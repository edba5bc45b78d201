// Devices: list, one device with its values and curves, and adding one.
import { useEffect, useState } from 'preact/hooks'
import { enc, get, list, post, query, remove } from '../api'
import { filters, go, liveEvents, may, say, state, upsert, useList, useLive, useLoad, useTick } from '../app'
import Chart from '../chart'
import { Live } from '../live'
import { duration, isStale, measured, now, num, span, unit } from '../format'
import { t, text } from '../i18n'
import { Choose, DomainIcon, domainOf, Empty, Failed, Filters, Icon, lazy, Loading, modelTitle, Only, Paged, Search, SeverityMark, StatusMark, Sure, Table, Wait, When } from '../ui'
import { href, withFilter } from '../url'
import { clockStates, type Alarm, type Device, type Latest, type Model, type Series, type Status } from '../types'
import { AlarmState, byWeight } from './alarms'
import { Attributes } from './attributes'
import { Fact } from './cases'
import { Commands } from './commands'
import { Credentials } from './credentials'
import { Rejected } from './letters'
import { Messages, type Message } from './messages'
import { OutList, TakeOut, useOut } from './out'
import { Sections } from './sections'
import { Why } from './whydrawer'

const AddDevice = lazy('add device', async () => (await import('./deviceform')).AddDevice)
const EditDevice = lazy('edit device', async () => (await import('./deviceform')).EditDevice)
const DeviceFirmware = lazy('device firmware', async () => (await import('./firmware')).DeviceFirmware)
const Import = lazy('import', async () => (await import('./import')).Import)
const WhyNotAsk = lazy('whynot', async () => (await import('./whynot')).WhyNotAsk)

const page = 200
const statuses: Status[] = ['online', 'silent', 'never']

/** Deleted is the event of a device that is gone. */
interface Deleted {
  id: string
  deleted: true
}

/** fresh is a device as its event has it: whole but for the alarm, which events leave out. */
const fresh = (old: Device, d: Device): Device => ({ ...d, alarm: old.alarm, latest: { ...old.latest, ...d.latest } })

export function Devices({ search }: { search: string }) {
  useTick(5000)
  const { asked, set, clear } = filters('/devices', search, ['model', 'q', 'status', 'grid', 'clock'])
  const loaded = useList<Device>('/devices', asked, page)
  const [adding, setAdding] = useState<'one' | 'file'>()
  useLive<Device | Deleted>('device', (d) =>
    loaded.change((l) => {
      const old = l.items.find((x) => x.id === d.id)
      if (old === undefined) return l
      return { ...l, items: 'deleted' in d ? l.items.filter((x) => x !== old) : upsert(l.items, fresh(old, d)) }
    }),
  )
  const items = loaded.items.filter((d) => asked.status === '' || d.status === asked.status)
  return (
    <>
      <div class="head">
        <h1>{t('de.title')}</h1>
        <span class="buttons end">
          <a class="button" href="/api/v1/devices/export" download="devices.csv">
            <Icon name="download" size={16} /> {t('de.export')}
          </a>
          {may('devices') && (
            <>
              <button type="button" aria-haspopup="dialog" onClick={() => setAdding('file')}>
                {t('im.title')}
              </button>
              <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setAdding('one')}>
                <Icon name="plus" size={16} /> {t('de.add')}
              </button>
            </>
          )}
        </span>
      </div>
      <Sections at="devices" />
      <Filters clear={clear}>
        <Search value={asked.q} label={t('de.search')} onChange={(v) => set('q', v)} />
        <Choose label={t('de.model')} any={t('de.anyModel')} value={asked.model} of={[...state.models.values()].map((m) => [m.name, modelTitle(m.name)])} onChange={(v) => set('model', v)} />
        <Choose label={t('de.status')} any={t('de.anyStatus')} value={asked.status} of={statuses.map((s) => [s, t(`status.${s}`)])} onChange={(v) => set('status', v)} />
        <Choose label={t('de.clock')} any={t('de.anyClock')} value={asked.clock} of={clockStates.map((s) => [s, t('de.clockIs', t(`de.clock.${s}`))])} onChange={(v) => set('clock', v)} />
        {asked.grid !== '' && <Only off={() => set('grid', '')}>{t('map.grid', asked.grid)}</Only>}
      </Filters>
      <Paged of={loaded} n={items.length} none={t(clear ? 'de.noneFiltered' : 'de.none')}>
        <Table kind="devices" heads={[t('de.device'), t('de.model'), t('de.status'), t('de.latest'), t('de.alarm')]}>
          {items.map((d) => (
            <tr role="row" key={d.id}>
              <td role="cell" class="c-main">
                <a class="title" href={href(['devices', d.id])}>
                  {d.name || d.id}
                </a>
                {d.name && d.name !== d.id && <span class="sub">{d.id}</span>}
              </td>
              <td role="cell" class="c-model">
                <span class="mark">
                  <DomainIcon domain={domainOf(d.model)} /> {modelTitle(d.model)}
                </span>
              </td>
              <td role="cell" class="c-state">
                <StatusMark of={d.status} disabled={d.disabled} />
                <span class="sub">
                  <When at={d.last_seen} ago /> {d.status === 'silent' && !d.disabled && d.reason !== undefined && t(`de.silent.${d.reason}`)}
                </span>
              </td>
              <td role="cell" class="c-latest">
                <Brief d={d} />
              </td>
              <td role="cell" class="c-alarm">{d.alarm ? <SeverityMark of={d.alarm} /> : ''}</td>
            </tr>
          ))}
        </Table>
      </Paged>
      {adding === 'one' && <AddDevice onClose={() => setAdding(undefined)} onDone={loaded.again} />}
      {adding === 'file' && <Import onClose={() => setAdding(undefined)} onDone={loaded.again} />}
    </>
  )
}

/** Brief is the first three latest values of a device in one line. */
export function Brief({ d }: { d: Device }) {
  const model = state.models.get(d.model)
  const have = (model?.metrics ?? []).filter((m) => d.latest?.[m.name] !== undefined).slice(0, 3)
  if (have.length === 0) return <span class="quiet">–</span>
  return (
    <span class="brief">
      {have.map((m) => {
        const l = d.latest![m.name]!
        const stale = isStale(l.time, m, model)
        return (
          <span key={m.name} class={stale ? 'stale' : ''} title={stale ? t('de.stale') : undefined}>
            <span class="quiet">{text(m.title, m.name)}</span> {measured(l.value, m.name, model)}
            {stale && <span class="old"> ({t('de.stale')})</span>}
          </span>
        )
      })}
    </span>
  )
}

/** DevicePage is one device; its readings come in live. */
export function DevicePage({ id, search }: { id: string; search: string }) {
  useTick(1000)
  const loaded = useLoad('device ' + id, (signal) => get<Device>('/devices/' + enc(id), signal))
  const alarms = useLoad('alarms of ' + id, (signal) => list<Alarm>('/alarms', { state: 'active', device: id }, 200, signal))
  const out = useOut()
  const [delay, setDelay] = useState<number>() // between measuring and coming in, ms, of the newest message
  const [why, setWhy] = useState<Alarm>()
  const [open, setOpen] = useState<'edit' | 'turn' | 'delete'>()
  const [asking, setAsking] = useState(() => new URLSearchParams(search).has('rule'))
  useLive<Alarm>('alarm', (a) => {
    if (a.device === id || a.members?.includes(id)) alarms.change((l) => ({ ...l, items: upsert(l.items, a) }))
  })
  useLive<Device | Deleted>('device', (d) => {
    if (d.id === id && !('deleted' in d)) loaded.change((x) => fresh(x, d))
  })
  useEffect(() => {
    const live = new Live({
      url: `/api/v1/devices/${enc(id)}/messages`,
      onEvent: (kind, data) => {
        if (kind !== 'message') return
        const m = data as Message
        const newer = (x: Latest, than: Latest | undefined) => than === undefined || Date.parse(x.time) >= Date.parse(than.time)
        const latest: Record<string, Latest> = {}
        for (const { metric, ...x } of m.readings) if (newer(x, latest[metric])) latest[metric] = x
        const times = m.readings.map((r) => Date.parse(r.time))
        if (times.length > 0) setDelay(Date.parse(m.received) - Math.max(...times))
        loaded.change((d) => ({
          ...d,
          status: 'online',
          reason: undefined,
          last_seen: m.received,
          latest: { ...d.latest, ...Object.fromEntries(Object.entries(latest).filter(([name, x]) => newer(x, d.latest?.[name]))) },
        }))
        liveEvents.emit({ kind: 'message', data: { ...m, device: id } })
        liveEvents.emit({ kind: 'reading', data: { device: id, latest } })
      },
      // What came in before the stream was there is missing from it.
      onState: (s) => s === 'open' && loaded.again(),
      onReset: loaded.again,
    })
    return () => live.close()
  }, [id])
  const d = loaded.data
  if (d === undefined) return <Wait of={loaded} />
  const model = state.models.get(d.model)
  const active = (alarms.data?.items ?? []).filter((a) => a.state === 'active').sort(byWeight)
  return (
    <>
      <p class="crumb">
        <a href="/devices">
          <Icon name="back" size={14} /> {t('de.title')}
        </a>
      </p>
      <div class="head">
        <DomainIcon domain={model?.domain} size={22} />
        <h1>{d.name || d.id}</h1>
        <StatusMark of={d.status} disabled={d.disabled} />
        <span class="quiet">{d.last_seen ? t('de.presence', ago(d.last_seen)) : t('de.neverText')}</span>
        {d.status === 'silent' && d.reason !== undefined && !d.disabled && <span>{t(`de.silent.${d.reason}`)}</span>}
        {d.disabled && <span class="tag">{t('de.disabled')}</span>}
      </div>
      <div class="columns">
        <div>
          <OutList of={(out.data ?? []).filter((o) => o.device === id || o.entity === id)} again={out.again} />
          <section class="card">
            <h2>{t('de.openAlarms')}</h2>
            {active.length === 0 ? (
              <p class="quiet">{t('de.noAlarms')}</p>
            ) : (
              <ul class="bare lines">
                {active.map((a) => (
                  <li key={a.id}>
                    <SeverityMark of={a.severity} />
                    <span class="grow">
                      {text(a.title, a.rule)}
                      <span class="sub">
                        <When at={a.raised_at} />
                        {a.case && (
                          <>
                            {' · '}
                            <a href={href(['cases', a.case])}>{a.case}</a>
                          </>
                        )}
                      </span>
                    </span>
                    <span>
                      <AlarmState a={a} />
                    </span>
                    <button type="button" aria-haspopup="dialog" onClick={() => setWhy(a)}>
                      {t('al.why')}
                    </button>
                  </li>
                ))}
              </ul>
            )}
          </section>
          <section class="card">
            <h2>{t('de.latest')}</h2>
            <Values d={d} model={model} />
          </section>
          {model !== undefined && <Curves d={d} model={model} search={search} />}
          <Attributes d={d} model={model} />
          {model !== undefined && (model.commands ?? []).length > 0 && <Commands d={d} model={model} />}
          {may('devices') && <DeviceFirmware d={d} />}
          <Messages d={d} model={model} />
          <Rejected device={d.id} />
          {may('devices') && <Credentials d={d} model={model} />}
          <details class="card" open={asking} onToggle={(e) => setAsking(e.currentTarget.open)}>
            <summary>
              <h2>{t('ru.tab.whynot')}</h2>
            </summary>
            {asking && <WhyNotAsk path={href(['devices', d.id])} search={search} rule={undefined} device={d} />}
          </details>
        </div>
        <section class="card facts">
          <h2>{t('c.details')}</h2>
          <dl>
            <Fact name={t('de.id')}>{d.id}</Fact>
            <Fact name={t('de.model')}>{modelTitle(d.model)}</Fact>
            <Fact name={t('de.grid')}>{d.grid && <a href={href(['devices'], { grid: d.grid })}>{d.grid}</a>}</Fact>
            <Fact name={t('de.location')}>
              {d.location && (
                <a href={href([], { at: `${d.location.lon},${d.location.lat}`, device: d.id })}>
                  <Icon name="pin" size={14} /> {t('map.show')}
                </a>
              )}
            </Fact>
            <Fact name={t('ca.component')}>{d.component && <a href={href([], { component: d.component, at: d.location && `${d.location.lon},${d.location.lat}` })}>{d.component}</a>}</Fact>
            <Fact name={t('de.adjacent')}>
              {(d.adjacent ?? []).length > 0 && (
                <>
                  {d.adjacent!.map((x) => (
                    <a key={x} href={href(['devices', x])} class="item">
                      {x}
                    </a>
                  ))}
                </>
              )}
            </Fact>
            <Fact name={t('de.clock')}>
              {d.clock && <Clock of={d.clock} />}
              {delay !== undefined && <span class="sub">{delay < -1000 ? t('de.clockAhead', span(-delay)) : t('de.clockBehind', span(Math.max(0, delay)))}</span>}
            </Fact>
            <Fact name={t('de.heartbeat')}>{model !== undefined && duration(model.heartbeat) > 0 && span(duration(model.heartbeat))}</Fact>
            <Fact name={t('cl.until')}>
              {d.claimable_until && Date.parse(d.claimable_until) > now() && (
                <>
                  <When at={d.claimable_until} /> {may('claim') && <a href={href(['claim'], { id: d.id })}>{t('cl.title')}</a>}
                </>
              )}
            </Fact>
            <Fact name={t('de.limits')}>{model?.limits && <Limits of={model.limits} />}</Fact>
            <Fact name={t('de.created')}>
              <When at={d.created} />
            </Fact>
          </dl>
          <div class="buttons">
            {may('cases') && (
              <a class="button" href={href(['intake', 'new'], { device: d.id })}>
                {t('ca.openHere')}
              </a>
            )}
            <TakeOut device={d.id} onDone={out.again} />
            {may('devices') && (
              <>
                <button type="button" aria-haspopup="dialog" onClick={() => setOpen('edit')}>
                  {t('de.edit')}
                </button>
                <button type="button" aria-haspopup="dialog" onClick={() => setOpen('turn')}>
                  {t(d.disabled ? 'de.enable' : 'de.disable')}
                </button>
                <button type="button" aria-haspopup="dialog" onClick={() => setOpen('delete')}>
                  {t('de.delete')}
                </button>
              </>
            )}
          </div>
        </section>
      </div>
      {why !== undefined && <Why id={why.id} alarm={why} onClose={() => setWhy(undefined)} />}
      {open === 'edit' && <EditDevice of={d} onClose={() => setOpen(undefined)} onDone={loaded.again} />}
      {open === 'delete' && (
        <Sure
          title={t('de.delete')}
          onClose={() => setOpen(undefined)}
          does={async () => {
            await remove('/devices/' + enc(d.id))
            say(t('de.deleted', d.name || d.id))
            go('/devices')
          }}
        >
          {t('de.deleteText', d.name || d.id)}
        </Sure>
      )}
      {open === 'turn' && (
        <Sure
          title={t(d.disabled ? 'de.enable' : 'de.disable')}
          onClose={() => setOpen(undefined)}
          does={async () => {
            await post<Device>(`/devices/${enc(d.id)}/${d.disabled ? 'enable' : 'disable'}`)
            say(t(d.disabled ? 'de.didEnable' : 'de.didDisable', d.name || d.id))
            loaded.again()
          }}
        >
          {t(d.disabled ? 'de.enableText' : 'de.disableText', d.name || d.id)}
        </Sure>
      )}
    </>
  )
}

/** Limits says what devices of a model may send at most. */
function Limits({ of: l }: { of: NonNullable<Model['limits']> }) {
  const rate = (name: 'messages' | 'all_messages' | 'connections') => l[name] && t(`de.limit.${name}`, num(l[name].count), span(duration(l[name].per)))
  const all = [rate('messages'), rate('all_messages'), rate('connections'), l.payload && t('de.limit.payload', num(l.payload))]
  return (
    <>
      {all.filter(Boolean).map((x) => (
        <span key={x} class="sub">
          {x}
        </span>
      ))}
    </>
  )
}

/** Clock says how the clock of a device goes. */
function Clock({ of: c }: { of: NonNullable<Device['clock']> }) {
  // How far a clock is off that was never set, the platform only knows up to a bound.
  const off = c.state === 'unset' || Math.abs(c.offset_s) < 0.5 ? '' : `${c.offset_s > 0 ? '+' : '−'}${span(Math.abs(c.offset_s) * 1000)}`
  return (
    <>
      <span class="mark">
        {c.state !== 'good' && <Icon name="warn" size={15} />} {t(`de.clock.${c.state}`)} {off}
      </span>
      <span class="sub">{c.drift_ppm === undefined ? t('de.clockUnknown') : t('de.clockDrift', num(c.drift_ppm), num(c.drift_ppm * 0.0864))}</span>
    </>
  )
}

const ago = (at: string) => t('c.ago', span(now() - Date.parse(at)))

function Values({ d, model }: { d: Device; model: Model | undefined }) {
  const declared = model?.metrics ?? []
  const extra = Object.keys(d.latest ?? {}).filter((k) => !declared.some((m) => m.name === k))
  const rows = [...declared.map((m) => ({ name: m.name, m })), ...extra.map((name) => ({ name, m: undefined }))]
  return (
    <table class="plain values">
      <thead>
        <tr>
          <th>{t('de.metric')}</th>
          <th>{t('de.value')}</th>
          <th>{t('de.measured')}</th>
          <th>{t('de.quality')}</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ name, m }) => {
          const l = d.latest?.[name]
          const stale = l !== undefined && isStale(l.time, m, model)
          return (
            <tr key={name} class={stale ? 'stale' : ''}>
              <td>{text(m?.title, name)}</td>
              <td class="num">{l === undefined ? <span class="quiet">{t('de.noValue')}</span> : <b>{measured(l.value, name, model)}</b>}</td>
              <td>
                <When at={l?.time} ago />
              </td>
              <td>
                {l === undefined ? (
                  ''
                ) : stale ? (
                  <span class="mark">
                    <Icon name="clock" size={15} /> {t('de.stale')}
                  </span>
                ) : l.quality !== 'good' ? (
                  <span class="mark">
                    <Icon name="warn" size={15} /> {t(`de.q.${l.quality}`)}
                  </span>
                ) : (
                  <span class="quiet">{t('de.fresh')}</span>
                )}
              </td>
            </tr>
          )
        })}
      </tbody>
    </table>
  )
}

const ranges: Record<string, { ms: number; every: string }> = {
  '1h': { ms: 3_600_000, every: '' },
  '6h': { ms: 6 * 3_600_000, every: '' },
  '24h': { ms: 24 * 3_600_000, every: '5m' },
  '7d': { ms: 7 * 24 * 3_600_000, every: '30m' },
  '30d': { ms: 30 * 24 * 3_600_000, every: '2h' },
}
const rangeNames = ['1h', '6h', '24h', '7d', '30d'] as const

/** Curves is the chart with its switches; metric and range live in the address. */
function Curves({ d, model, search }: { d: Device; model: Model; search: string }) {
  const q = new URLSearchParams(search)
  const drawable = model.metrics.filter((m) => m.kind !== 'text')
  const metric = drawable.find((m) => m.name === q.get('metric')) ?? drawable[0]
  const range = rangeNames.find((r) => r === q.get('range')) ?? '1h'
  const { ms, every } = ranges[range]!
  const [extra, setExtra] = useState<[string, Latest['value']][]>([])
  const key = `series ${d.id} ${metric?.name} ${range}`
  const series = useLoad(key, async (signal) => {
    const to = now()
    const from = to - ms
    const agg = metric?.kind === 'bool' ? 'last' : metric?.counter ? 'last' : 'mean'
    const s = await get<Series>(
      `/devices/${enc(d.id)}/series` +
        query({
          metric: metric?.name,
          from: new Date(from).toISOString(),
          to: new Date(to).toISOString(),
          every: metric?.kind === 'bool' ? undefined : every,
          agg: every && metric?.kind !== 'bool' ? agg : undefined,
          unknown: true,
        }),
      signal,
    )
    setExtra([])
    return { ...s, from, to }
  }, Math.max(60_000, ms / 200))
  useLive<{ device: string; latest: Record<string, Latest> }>('reading', (r) => {
    const l = metric === undefined ? undefined : r.latest[metric.name]
    if (r.device === d.id && l !== undefined && every === '') setExtra((x) => [...x, [l.time, l.value]])
  })
  const [points, to] = usePoints(series.data?.points ?? undefined, extra, series.data?.to ?? 0)
  if (metric === undefined) return null
  const set = (name: string, value: string) => go(href(['devices', d.id]) + withFilter(search, name, value), true)
  const u = series.data?.unit ?? metric.unit
  const name = text(metric.title, metric.name)
  const raw = every === '' || metric.kind === 'bool'
  const usual = Math.max(2 * duration(model.heartbeat), 3 * duration(model.report))
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('de.curve')}</h2>
        <select aria-label={t('de.metric')} value={metric.name} onChange={(e) => set('metric', e.currentTarget.value)}>
          {drawable.map((m) => (
            <option key={m.name} value={m.name}>
              {text(m.title, m.name)}
            </option>
          ))}
        </select>
        <div class="segments" role="group" aria-label={t('de.range')}>
          {rangeNames.map((r) => (
            <button type="button" key={r} aria-pressed={r === range} onClick={() => set('range', r)}>
              {t(`de.r.${r}`)}
            </button>
          ))}
        </div>
        <span class="quiet small">{raw ? t('de.rawPoints') : t('de.averages', span(duration(every)))}</span>
      </div>
      {series.data === undefined ? (
        series.error ? <Failed error={series.error} again={series.again} /> : <div class="chart" style={{ minHeight: 290 }}><Loading /></div>
      ) : points.length === 0 ? (
        <Empty>{t('de.chartEmpty')}</Empty>
      ) : (
        <Chart
          points={points}
          metric={metric}
          name={name + (unit(u) === '' ? '' : ` (${unit(u)})`)}
          unit={u}
          from={to - ms}
          to={to}
          gap={(raw ? usual : Math.max(usual, 1.5 * duration(every))) || Infinity}
        />
      )}
    </section>
  )
}

/** usePoints puts what came in live behind what was loaded; the same arrays as long as nothing changed. */
function usePoints(loaded: Series['points'] | undefined, extra: [string, Latest['value']][], to: number): [[string, Latest['value']][], number] {
  const make = (): [[string, Latest['value']][], number] => {
    const base = loaded ?? []
    const last = base.length === 0 ? 0 : Date.parse(base.at(-1)![0])
    const more = extra.filter(([at]) => Date.parse(at) > last)
    return [[...base, ...more], Math.max(to, ...more.map(([at]) => Date.parse(at)))]
  }
  const [got, set] = useState<{ loaded: unknown; extra: unknown; out: ReturnType<typeof make> }>()
  if (got === undefined || got.loaded !== loaded || got.extra !== extra) {
    const out = make()
    set({ loaded, extra, out })
    return out
  }
  return got.out
}
