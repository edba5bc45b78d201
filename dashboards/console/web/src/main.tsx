// The frame of the console: sign-in or pages, navigation, banner, notices.
import { render } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import './style.css'
import { ApiError, get } from './api'
import { enter, go, leave, redraw, reload, said, state, usePlace, useRedraw, words } from './app'
import { whenSignedOut } from './api'
import { lang, t, type Key } from './i18n'
import { Alarms } from './pages/alarms'
import { CasePage, Cases } from './pages/cases'
import { DevicePage, Devices } from './pages/devices'
import { MapPage } from './pages/map'
import { RulePage, Rules } from './pages/rules'
import { SignIn } from './pages/signin'
import { Settings, startSettings } from './settings'
import { Failed, Icon, lazy, Loading } from './ui'
import { parse } from './url'
import type { User } from './types'
import type { Sign } from './shapes'

const Load = lazy('load', async () => (await import('./pages/load')).Load)

const pages: { path: string; sign: Sign; title: Key }[] = [
  { path: '', sign: 'map', title: 'nav.map' },
  { path: 'alarms', sign: 'alarm', title: 'nav.alarms' },
  { path: 'cases', sign: 'case', title: 'nav.cases' },
  { path: 'devices', sign: 'device', title: 'nav.devices' },
  { path: 'rules', sign: 'rule', title: 'nav.rules' },
]

function Frame() {
  useRedraw(redraw)
  const [start, setStart] = useState<'asking' | 'ready' | string>('asking')
  const begin = () => {
    setStart('asking')
    get<User>('/me')
      .then(enter)
      .then(
        () => setStart('ready'),
        (e) => setStart(e instanceof ApiError && e.status === 401 ? 'ready' : words(e)),
      )
  }
  useEffect(begin, [])
  if (start === 'asking') return <Loading />
  if (start !== 'ready') return <Failed error={start} again={begin} />
  return state.user === undefined ? <SignIn /> : <Desk />
}

function Desk() {
  const { pathname, search } = usePlace()
  const place = parse(pathname, search)
  const [first = '', second] = place.path
  const page = pages.find((p) => p.path === first)
  const main = useRef<HTMLElement>(null)
  const before = useRef(pathname)
  useEffect(() => {
    document.title = `${page === undefined ? '' : t(page.title) + ' · '}${t('app.name')}`
    if (before.current === pathname) return
    before.current = pathname
    // A new page begins at its top, and a screen reader at its heading.
    scrollTo(0, 0)
    main.current?.focus({ preventScroll: true })
  }, [pathname, lang()])
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
          {pages.map((p) => (
            <a key={p.path} href={'/' + p.path} aria-current={p.path === first ? 'page' : undefined}>
              <Icon name={p.sign} />
              <span>{t(p.title)}</span>
            </a>
          ))}
        </nav>
        <Settings />
      </header>
      {state.live === 'lost' && (
        <div class="banner" role="alert">
          <Icon name="lost" /> {t('live.lost')}
        </div>
      )}
      <main id="main" ref={main} tabIndex={-1} class={'page page-' + (first || 'map')}>
        {first === '' && <MapPage search={search} />}
        {first === 'alarms' && (second === 'load' ? <Load search={search} /> : <Alarms search={search} />)}
        {first === 'cases' && (second === undefined ? <Cases search={search} /> : <CasePage key={second} id={second} />)}
        {first === 'devices' &&
          (second === undefined ? <Devices search={search} /> : <DevicePage key={second} id={second} search={search} />)}
        {first === 'rules' && (second === undefined ? <Rules /> : <RulePage key={second} id={second} search={search} />)}
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

// A page that comes back from the browser's own store shows what is now.
addEventListener('pageshow', (e) => e.persisted && reload.emit())

render(<Frame />, document.getElementById('app')!)
