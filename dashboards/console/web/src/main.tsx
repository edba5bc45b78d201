// The frame of the console: sign-in or pages, navigation, banner, notices.
import { render } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import './style.css'
import { ApiError } from './api'
import { begin, go, leave, may, redraw, reload, said, state, usePlace, useRedraw, words } from './app'
import { whenSignedOut } from './api'
import { lang, t, text, type Key } from './i18n'
import { Alarms } from './pages/alarms'
import { CasePage, Cases } from './pages/cases'
import { DevicePage, Devices } from './pages/devices'
import { MapPage } from './pages/map'
import { RulePage, Rules } from './pages/rules'
import { deviceSections } from './pages/sections'
import { SignIn } from './pages/signin'
import { learn } from './reasons'
import { Settings, startSettings } from './settings'
import { startSound } from './sound'
import { Failed, Icon, lazy, Loading } from './ui'
import { parse } from './url'
import type { Sign } from './shapes'

const Intake = lazy('intake', async () => (await import('./pages/intake')).Intake)
const Entry = lazy('entry', async () => (await import('./pages/intake')).Entry)
const Dispatch = lazy('dispatch', async () => (await import('./pages/desks')).Dispatch)
const Handling = lazy('handling', async () => (await import('./pages/desks')).Handling)
const Supervision = lazy('supervision', async () => (await import('./pages/desks')).Supervision)
const Tasks = lazy('tasks', async () => (await import('./pages/tasks')).Tasks)
const Task = lazy('task', async () => (await import('./pages/tasks')).Task)
const Evaluation = lazy('evaluation', async () => (await import('./pages/evaluation')).Evaluation)
const Users = lazy('users', async () => (await import('./pages/users')).Users)
const Audit = lazy('audit', async () => (await import('./pages/audit')).Audit)
const Ledger = lazy('ledger', async () => (await import('./pages/ledger')).Ledger)
const DeadLetters = lazy('dead letters', async () => (await import('./pages/ledger')).DeadLetters)
const Firmware = lazy('firmware', async () => (await import('./pages/firmware')).Firmware)
const Provisioning = lazy('provisioning', async () => (await import('./pages/firmware')).Provisioning)
const Uplinks = lazy('uplinks', async () => (await import('./pages/uplinks')).Uplinks)
const Claim = lazy('claim', async () => (await import('./pages/claim')).Claim)
const Sites = lazy('sites', async () => (await import('./pages/sites')).Sites)
const Components = lazy('components', async () => (await import('./pages/components')).Components)
const Grids = lazy('grids', async () => (await import('./pages/grids')).Grids)
const NoticesPage = lazy('notices', async () => (await import('./pages/notices')).Notices)
const Load = lazy('load', async () => (await import('./pages/load')).Load)

/** pages are those of the navigation, or of the menu at its end; of some only certain posts have a use. */
const pages: { path: string; sign: Sign; title: Key; may?: Parameters<typeof may>[0]; menu?: true }[] = [
  { path: '', sign: 'map', title: 'nav.map', may: 'city' },
  { path: 'alarms', sign: 'alarm', title: 'nav.alarms', may: 'city' },
  { path: 'intake', sign: 'inbox', title: 'nav.intake', may: 'intake' },
  { path: 'dispatch', sign: 'send', title: 'nav.dispatch', may: 'dispatch' },
  { path: 'handling', sign: 'tool', title: 'nav.handling', may: 'handling' },
  { path: 'tasks', sign: 'walk', title: 'nav.tasks', may: 'tasks' },
  { path: 'cases', sign: 'case', title: 'nav.cases' },
  { path: 'supervision', sign: 'eye', title: 'nav.supervision', may: 'supervision' },
  { path: 'evaluation', sign: 'chart', title: 'nav.evaluation', may: 'evaluation' },
  { path: 'devices', sign: 'device', title: 'nav.devices', may: 'city' },
  { path: 'rules', sign: 'rule', title: 'nav.rules', may: 'city' },
  { path: 'notices', sign: 'send', title: 'nav.notices', may: 'notices', menu: true },
  { path: 'users', sign: 'people', title: 'nav.users', may: 'users', menu: true },
  { path: 'audit', sign: 'log', title: 'nav.audit', may: 'users', menu: true },
]

function Frame() {
  useRedraw(redraw)
  const [start, setStart] = useState<'asking' | 'ready' | string>('asking')
  const ask = () => {
    setStart('asking')
    begin().then(
      () => setStart('ready'),
      (e) => setStart(e instanceof ApiError && e.status === 401 ? 'ready' : words(e)),
    )
  }
  useEffect(ask, [])
  if (start === 'asking') return <Loading />
  if (start !== 'ready') return <Failed error={start} again={ask} />
  return state.user === undefined ? <SignIn /> : <Desk />
}

function Desk() {
  const { pathname, search } = usePlace()
  const place = parse(pathname, search)
  const [asked = '', second] = place.path
  const first = asked === '' && !may('city') ? 'cases' : asked
  const shown = pages.filter((p) => p.may === undefined || may(p.may))
  const page = shown.find((p) => p.path === (deviceSections().includes(first) ? 'devices' : first)) ?? (first === 'intake' && second === 'new' && may('cases') ? pages.find((p) => p.path === 'cases') : undefined)
  const main = useRef<HTMLElement>(null)
  const before = useRef(pathname)
  useLayoutEffect(() => {
    document.title = `${page === undefined ? '' : t(page.title) + ' · '}${t('app.name')}`
    if (before.current === pathname) return
    before.current = pathname
    // A new page begins at its top, and a screen reader at its heading.
    scrollTo(0, 0)
    main.current?.focus({ preventScroll: true })
  }, [pathname, lang()])
  // What the server says seldom is there in Chinese a moment later; without it, it is said in English.
  useEffect(() => {
    if (lang() === 'zh') learn().then(() => redraw.emit(), () => {})
  }, [lang()])
  // On a narrow window the navigation is wider: the page that is shown is in sight there.
  useEffect(() => {
    for (const a of document.querySelectorAll('nav [aria-current]')) a.scrollIntoView({ block: 'nearest', inline: 'nearest' })
  }, [page, first, state.user])
  return (
    <div class="desk">
      <a class="skip" href="#main">
        {t('app.skip')}
      </a>
      <header class="top">
        <a class="brand" href="/" aria-label={t('app.name')}>
          <img src="/favicon.svg" alt="" width="26" height="26" />
          <span class="wide">{t('app.name')}</span>
        </a>
        {state.info?.demo && <span class="tag">{t('app.demo')}</span>}
        <nav aria-label={t('nav.main')}>
          {shown.filter((p) => !p.menu).map((p) => (
            <a key={p.path} href={'/' + p.path} aria-current={p === page ? 'page' : undefined}>
              <Icon name={p.sign} />
              <span>{t(p.title)}</span>
            </a>
          ))}
        </nav>
        <Settings pages={shown.filter((p) => p.menu)} />
      </header>
      {state.live === 'lost' && (
        <div class="banner lost" role="alert">
          <Icon name="lost" /> {t('live.lost')}
        </div>
      )}
      {state.info?.trouble !== undefined && state.live !== 'lost' && (
        <div class="banner" role="alert">
          <Icon name="warn" /> {text(state.info.trouble)}
        </div>
      )}
      <main id="main" ref={main} tabIndex={-1} class={'page page-' + (first || 'map')}>
        {page !== undefined && first === '' && <MapPage search={search} />}
        {page !== undefined && first === 'alarms' && (second === 'load' ? <Load search={search} /> : <Alarms search={search} />)}
        {page !== undefined && first === 'intake' && (second === 'new' ? <Entry search={search} /> : <Intake search={search} />)}
        {page !== undefined && first === 'dispatch' && <Dispatch search={search} />}
        {page !== undefined && first === 'handling' && <Handling search={search} />}
        {page !== undefined && first === 'tasks' && (second === undefined ? <Tasks /> : <Task key={second} id={second} />)}
        {page !== undefined && first === 'supervision' && <Supervision search={search} />}
        {page !== undefined && first === 'users' && <Users search={search} />}
        {page !== undefined && first === 'audit' && <Audit search={search} />}
        {page !== undefined && first === 'evaluation' && <Evaluation search={search} />}
        {first === 'cases' && (second === undefined ? <Cases search={search} /> : <CasePage key={second} id={second} />)}
        {page !== undefined &&
          first === 'devices' &&
          (second === undefined ? <Devices search={search} /> : <DevicePage key={second} id={second} search={search} />)}
        {page !== undefined && first === 'claim' && <Claim search={search} />}
        {page !== undefined && first === 'components' && <Components search={search} />}
        {page !== undefined && first === 'sites' && <Sites search={search} />}
        {page !== undefined && first === 'grids' && <Grids search={search} />}
        {page !== undefined && first === 'notices' && <NoticesPage search={search} />}
        {page !== undefined && first === 'ledger' && <Ledger search={search} />}
        {page !== undefined && first === 'deadletters' && <DeadLetters search={search} />}
        {page !== undefined && first === 'firmware' && <Firmware />}
        {page !== undefined && first === 'provisioning' && <Provisioning />}
        {page !== undefined && first === 'uplinks' && <Uplinks />}
        {page !== undefined && first === 'rules' && (second === undefined ? <Rules /> : <RulePage key={second} id={second} search={search} />)}
        {page === undefined && <p class="empty">{t('err.page')}</p>}
      </main>
      <Notices />
    </div>
  )
}

/** Notices shows what was done, briefly, and reads it out. */
function Notices() {
  const [last, set] = useState<{ text: string; bad: boolean }>()
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>
    const off = said.on((n) => {
      clearTimeout(timer)
      set(n)
      timer = setTimeout(() => set(undefined), n.bad ? 10_000 : 4000)
    })
    return () => {
      off()
      clearTimeout(timer)
    }
  }, [])
  return (
    <div class="notices" role="status">
      {last !== undefined && <p class={last.bad ? 'bad' : ''}>{last.text}</p>}
    </div>
  )
}

startSettings()
startSound()
whenSignedOut(() => leave(true))

// Links inside the console move without loading the page.
document.addEventListener('click', (e) => {
  const a = (e.target as Element).closest?.('a')
  if (a === null || e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return
  const to = a.getAttribute('href') ?? ''
  if (!to.startsWith('/') || to.startsWith('/api/') || a.target !== '') return
  e.preventDefault()
  go(to)
})

// What has the focus may go, as the button of what was done: then the page has it, not nothing,
// and the tab key goes on from there.
let focused: EventTarget | null = null
document.addEventListener('focusin', (e) => (focused = e.target))
new MutationObserver(() => {
  if (!(focused instanceof Element) || focused.isConnected || document.activeElement !== document.body) return
  focused = null
  document.getElementById('main')?.focus({ preventScroll: true })
}).observe(document.body, { childList: true, subtree: true })

// A page that comes back from the browser's own store shows what is now.
addEventListener('pageshow', (e) => e.persisted && reload.emit())

// The map's code is the largest part: its page loads it while all else is asked for.
const map = document.querySelector<HTMLMetaElement>('meta[name=map]')
if (location.pathname === '/' && map !== null) {
  const ahead = document.createElement('link')
  ahead.rel = 'modulepreload'
  ahead.href = map.content
  document.head.append(ahead)
}

render(<Frame />, document.getElementById('app')!)
