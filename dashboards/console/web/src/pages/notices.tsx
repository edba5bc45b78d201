// Notices: what was told to whom, what could not be told, and those who are told.
import { useState } from 'preact/hooks'
import { post, get, ApiError } from '../api'
import { go, may, say, useList, useLoad, words } from '../app'
import { known, t, text } from '../i18n'
import { reason } from '../reasons'
import { Empty, Filters, Icon, Paged, SeverityMark, useBusy, Wait, When, Wrong } from '../ui'
import { href, withFilter } from '../url'
import { noticeStates, type List, type Notice, type Receiver } from '../types'

const page = 100

export function Notices({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const receivers = q.get('tab') === 'receivers' && may('rules')
  const set = (name: string, v: string) => go('/notices' + withFilter(search, name, v), true)
  return (
    <>
      <div class="head">
        <h1>{t('nav.notices')}</h1>
        {may('rules') && (
          <div class="segments" role="group" aria-label={t('nav.notices')}>
            <button type="button" aria-pressed={!receivers} onClick={() => set('tab', '')}>
              {t('no.list')}
            </button>
            <button type="button" aria-pressed={receivers} onClick={() => set('tab', 'receivers')}>
              {t('no.receivers')}
            </button>
          </div>
        )}
      </div>
      {receivers ? <Receivers /> : <Sent state={noticeStates.find((s) => s === q.get('state')) ?? ''} set={set} />}
    </>
  )
}

function Sent({ state, set }: { state: string; set: (name: string, v: string) => void }) {
  const loaded = useList<Notice>('/notices', { state }, page, 10_000)
  return (
    <>
      <p class="lead quiet">{t('no.text')}</p>
      <Filters>
        <div class="chips" role="group" aria-label={t('no.state')}>
          {noticeStates.map((s) => (
            <button type="button" key={s} class="chip" aria-pressed={s === state} onClick={() => set('state', s === state ? '' : s)}>
              {t(`no.${s}`)}
            </button>
          ))}
        </div>
      </Filters>
      <Paged of={loaded} n={loaded.items.length} none={t(state === '' ? 'no.none' : 'no.noneFiltered')}>
        <ul class="bare lines card">
          {loaded.items.map((n) => (
            <OneNotice key={`${n.key} ${n.receiver ?? ''}`} n={n} again={loaded.again} />
          ))}
        </ul>
      </Paged>
    </>
  )
}

function OneNotice({ n, again }: { n: Notice; again: () => void }) {
  const { busy, error, run } = useBusy()
  return (
    <li>
      {n.severity !== undefined && <SeverityMark of={n.severity} quiet />}
      <span class="grow">
        {n.case === '' ? (
          text(n.title)
        ) : (
          <a class="title" href={href(['cases', n.case])}>
            {text(n.title, n.case)}
          </a>
        )}
        <span class="sub">
          {[known('no.kind.', n.kind), n.receiver, n.urgent && t('no.urgent'), n.case].filter(Boolean).join(' · ')} · <When at={n.at} />
        </span>
        {n.text && <span class="sub">{text(n.text)}</span>}
        {n.error !== undefined && n.state !== 'kept' && <span class="sub">{reason(n.error)}</span>}
        {n.next_try !== undefined && n.state === 'pending' && (
          <span class="sub">
            {t('no.next')} <When at={n.next_try} />
          </span>
        )}
        <Wrong text={error} />
      </span>
      <span class={'mark' + (n.state === 'dead' ? '' : ' quiet')}>
        <Icon name={n.state === 'dead' ? 'warn' : n.state === 'sent' ? 'check' : 'clock'} size={15} /> {t(`no.${n.state}`)}
      </span>
      {n.state === 'dead' && n.receiver !== undefined && may('alarms') && (
        <button
          type="button"
          disabled={busy}
          onClick={() =>
            run(async () => {
              const x = await post<Notice>('/notices/resend', { key: n.key, receiver: n.receiver })
              say(x.state === 'dropped' ? `${t('no.dropped')}: ${reason(x.error ?? '')}` : t('no.resent', n.receiver!))
              again()
            })
          }
        >
          {t('no.resend')}
        </button>
      )}
    </li>
  )
}

function Receivers() {
  const loaded = useLoad('receivers', async (signal) => (await get<List<Receiver>>('/receivers', signal)).items)
  if (loaded.data === undefined) return <Wait of={loaded} />
  return (
    <>
      <p class="lead quiet">{t('no.receiversText')}</p>
      {loaded.data.length === 0 ? (
        <Empty>{t('no.noReceivers')}</Empty>
      ) : (
        <ul class="bare lines card">
          {loaded.data.map((r) => (
            <OneReceiver key={r.name} r={r} />
          ))}
        </ul>
      )}
    </>
  )
}

/** OneReceiver can be sent a test; what its channel says stays on the screen. */
function OneReceiver({ r }: { r: Receiver }) {
  const [busy, setBusy] = useState(false)
  const [told, setTold] = useState<{ text: string; bad: boolean }>()
  const test = async () => {
    setBusy(true)
    setTold(undefined)
    try {
      await post('/notices/test', { receiver: r.name })
      setTold({ text: t('no.tested'), bad: false })
    } catch (e) {
      setTold({ text: e instanceof ApiError && e.message !== '' ? reason(e.message) : words(e), bad: true })
    }
    setBusy(false)
  }
  return (
    <li>
      <span class="grow">
        {r.name}
        <span class="sub">
          {known('no.channel.', r.channel)} · {t(r.all ? 'no.all' : 'no.some')}
          {r.quiet && ` · ${t('no.quiet', r.quiet)}`}
        </span>
        {told !== undefined && !told.bad && (
          <span class="sub" role="status">
            {told.text}
          </span>
        )}
        {told?.bad && <Wrong text={told.text} />}
      </span>
      <button type="button" disabled={busy} onClick={() => void test()}>
        {t('no.test')}
      </button>
    </li>
  )
}
