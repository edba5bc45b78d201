// Language, light or dark, and signing out. What was chosen is remembered in this browser.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { ApiError, post } from './api'
import { leave, redraw, say, state } from './app'
import { timeZone } from './format'
import { lang, setLang, t, type Key } from './i18n'
import { firstLang, type Lang } from './lang'
import { wear, whenPreferred, type Theme } from './look'
import { remember, remembered } from './remember'
import type { Sign } from './shapes'
import { setSound, soundOn } from './sound'
import { Decide, Icon, Modal, useBusy } from './ui'

let theme: Theme = 'auto'
let contrast = false

function show() {
  document.documentElement.lang = lang() === 'zh' ? 'zh-CN' : 'en'
  wear(theme, contrast)
  redraw.emit()
}

/** startSettings takes what was remembered, else what the browser prefers. */
export function startSettings() {
  setLang(firstLang(remembered('lang'), navigator.languages))
  const r = remembered('theme')
  theme = r === 'light' || r === 'dark' ? r : 'auto'
  contrast = remembered('contrast') === 'more'
  whenPreferred(show)
  show()
}

function chooseLang(l: Lang) {
  setLang(l)
  remember('lang', l)
  show()
}

function chooseTheme(x: Theme) {
  theme = x
  remember('theme', x)
  show()
}

function chooseContrast(on: boolean) {
  contrast = on
  remember('contrast', on ? 'more' : '')
  show()
}

/** Settings is the menu at the top right, with pages that are not for every day; plain, the language switch alone. */
export function Settings({ plain = false, pages = [] }: { plain?: boolean; pages?: { path: string; sign: Sign; title: Key }[] }) {
  const languages = (
    <div class="segments" role="group" aria-label={t('set.language')}>
      <button type="button" lang="zh-CN" aria-pressed={lang() === 'zh'} onClick={() => chooseLang('zh')}>
        中文
      </button>
      <button type="button" lang="en" aria-pressed={lang() === 'en'} onClick={() => chooseLang('en')}>
        English
      </button>
    </div>
  )
  const [open, setOpen] = useState(false)
  const [password, setPassword] = useState(false)
  const [sound, setSounding] = useState(soundOn)
  const box = useRef<HTMLDivElement>(null)
  useLayoutEffect(() => {
    if (!open) return
    const away = (e: Event) => !box.current?.contains(e.target as Node) && setOpen(false)
    // Opened by the keyboard or not, the arrows go on from the button.
    const steps: Record<string, (i: number, n: number) => number> = { ArrowDown: (i) => i + 1, ArrowUp: (i) => i - 1, Home: () => 1, End: (_, n) => n - 1 }
    const key = (e: KeyboardEvent) => {
      const all = [...(box.current?.querySelectorAll<HTMLElement>('button, a, input') ?? [])] // the first opens the menu
      const inside = box.current?.contains(document.activeElement)
      if (e.key === 'Escape') {
        setOpen(false)
        if (inside) all[0]?.focus()
        return
      }
      const step = steps[e.key]
      if (step === undefined || !inside) return
      e.preventDefault()
      all[(step(all.indexOf(document.activeElement as HTMLElement), all.length) + all.length) % all.length]?.focus()
    }
    document.addEventListener('pointerdown', away)
    document.addEventListener('focusin', away)
    document.addEventListener('keydown', key)
    return () => {
      document.removeEventListener('pointerdown', away)
      document.removeEventListener('focusin', away)
      document.removeEventListener('keydown', key)
    }
  }, [open])
  if (plain) return <div class="corner">{languages}</div>
  const signOut = () => {
    void post('/logout').then(
      () => leave(false),
      () => leave(false),
    )
  }
  const u = state.user
  return (
    <div class="settings" ref={box}>
      <button type="button" class="ghost" aria-expanded={open} title={t('nav.settings')} onClick={() => setOpen(!open)}>
        <Icon name="gear" />
        <span class="wide">{u?.title || u?.name}</span>
        <span class="hidden">{t('nav.settings')}</span>
      </button>
      {open && (
        <div class="menu">
          {u !== undefined && (
            <p>
              <strong>{u.title || u.name}</strong>
              <br />
              <span class="quiet">{t(`role.${u.role}`)}</span>
            </p>
          )}
          {languages}
          <div class="segments" role="group" aria-label={t('set.theme')}>
            {(['auto', 'light', 'dark'] as const).map((x) => (
              <button type="button" key={x} aria-pressed={theme === x} onClick={() => chooseTheme(x)}>
                {t(`set.${x}`)}
              </button>
            ))}
          </div>
          <label class="check">
            <input type="checkbox" checked={contrast} onChange={(e) => chooseContrast(e.currentTarget.checked)} />
            {t('set.contrast')}
          </label>
          <label class="check">
            <input
              type="checkbox"
              checked={sound}
              onChange={(e) => {
                setSounding(e.currentTarget.checked)
                setSound(e.currentTarget.checked)
              }}
            />
            {t('set.sound')}
          </label>
          {pages.map((p) => (
            <a key={p.path} class="button" href={'/' + p.path} onClick={() => setOpen(false)}>
              <Icon name={p.sign} size={16} /> {t(p.title)}
            </a>
          ))}
          <p class="quiet small">
            {t('set.zone', timeZone())}
            <br />
            {t('set.version', state.info?.version ?? '')}
          </p>
          <button
            type="button"
            aria-haspopup="dialog"
            onClick={() => {
              setOpen(false)
              setPassword(true)
            }}
          >
            {t('set.password')}
          </button>
          <button type="button" onClick={signOut}>
            {t('set.signout')}
          </button>
        </div>
      )}
      {password && <Password onClose={() => setPassword(false)} />}
    </div>
  )
}

/** Password changes one's own password. */
function Password({ onClose }: { onClose: () => void }) {
  const [old, setOld] = useState('')
  const [fresh, setFresh] = useState('')
  const [again, setAgain] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  useEffect(() => setWrong(''), [old, fresh, again])
  const submit = (e: Event) => {
    e.preventDefault()
    if ([...fresh].length < 8) return setWrong(t('set.passwordShort'))
    if (fresh !== again) return setWrong(t('set.passwordDiffer'))
    run(async () => {
      try {
        await post('/me/password', { old, new: fresh })
      } catch (e) {
        if (!(e instanceof ApiError) || e.status !== 403) throw e
        return setWrong(t('set.passwordWrong'))
      }
      say(t('set.passwordDone'))
      onClose()
    })
  }
  const field = (label: string, name: string, value: string, set: (s: string) => void) => (
    <label>
      {label}
      <input type="password" autocomplete={name} autofocus={name === 'current-password'} required value={value} onInput={(e) => set(e.currentTarget.value)} />
    </label>
  )
  return (
    <Modal title={t('set.password')} onClose={onClose}>
      <form onSubmit={submit}>
        <input class="hidden" type="text" autocomplete="username" value={state.user?.name} readOnly tabIndex={-1} aria-hidden="true" />
        {field(t('set.passwordOld'), 'current-password', old, setOld)}
        {field(t('set.passwordNew'), 'new-password', fresh, setFresh)}
        {field(t('set.passwordAgain'), 'new-password', again, setAgain)}
        <Decide wrong={wrong || error} busy={busy} does={t('set.password')} onClose={onClose} />
      </form>
    </Modal>
  )
}
