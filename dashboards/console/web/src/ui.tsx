// The small parts that all pages are made of.
import type { ComponentChildren, ComponentType } from 'preact'
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { ApiError } from './api'
import { say, state, useLoad, words, type Listed, type Loaded } from './app'
import { age, fullTime, now, span, time } from './format'
import { known, t, text } from './i18n'
import { domainShape, severityColor, severityShape, sign, type Sign } from './shapes'
import type { Case, Domain, Light, Severity, Status, Point } from './types'

/** Icon is a line drawing; it says nothing to a screen reader, the word next to it does. */
export function Icon({ name, size = 18 }: { name: Sign; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 20 20" aria-hidden="true">
      <path d={sign[name]} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  )
}

/** DomainIcon is the sign of a line of business. */
export function DomainIcon({ domain, size = 16 }: { domain: Domain | undefined; size?: number }) {
  if (domain === undefined || domainShape[domain] === undefined) return null
  return (
    <svg class="icon quiet" width={size} height={size} viewBox="0 0 20 20" aria-hidden="true">
      <path d={domainShape[domain]} fill="currentColor" fill-rule="evenodd" />
    </svg>
  )
}

/** SeverityIcon is shape, number and colour of a severity. */
export function SeverityIcon({ of, size = 20, hollow = false }: { of: Severity; size?: number; hollow?: boolean }) {
  const s = severityShape[of] ?? severityShape.indeterminate
  const c = severityColor[of] ?? severityColor.indeterminate
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 20 20" aria-hidden="true">
      <path d={s.path} fill={hollow ? 'none' : c.fill} stroke={hollow ? 'currentColor' : c.fill} stroke-width="1.2" stroke-linejoin="round" />
      <text x="10" y={14 + s.dy} text-anchor="middle" font-size="11" font-weight="700" fill={hollow ? 'currentColor' : c.ink}>
        {s.number}
      </text>
    </svg>
  )
}

/** SeverityMark is icon and word. */
export function SeverityMark({ of, quiet = false }: { of: Severity; quiet?: boolean }) {
  return (
    <span class={'mark' + (quiet ? ' quiet' : '')}>
      <SeverityIcon of={of} hollow={quiet} />
      <span>{known('sev.', of)}</span>
    </span>
  )
}

/** StatusMark is icon and word of a device's presence; online is grey. One that is disabled is nothing else. */
export function StatusMark({ of, disabled = false }: { of: Status; disabled?: boolean }) {
  if (disabled)
    return (
      <span class="mark status-silent">
        <Icon name="silent" size={16} />
        <span>{t('status.disabled')}</span>
      </span>
    )
  return (
    <span class={'mark status-' + of}>
      {of === 'online' ? <span class="dot" aria-hidden="true" /> : <Icon name={of === 'silent' ? 'silent' : 'never'} size={16} />}
      <span>{known('status.', of)}</span>
    </span>
  )
}

/** lightOf is the light of a case at this moment; the server's is that of when it was read. What is handled keeps the light of then. */
export function lightOf(c: Case): Light | undefined {
  if (c.deadline === undefined || c.closed_at !== undefined || c.handled_at !== undefined) return c.light
  if (now() > Date.parse(c.deadline)) return 'red'
  return c.yellow_at !== undefined && now() > Date.parse(c.yellow_at) ? 'yellow' : 'green'
}

/** Deadline is the light of a case with its word and the time that is left. */
export function Deadline({ of, long = false }: { of: Case; long?: boolean }) {
  if (of.closed_at !== undefined) {
    return (
      <span class="quiet">
        {t('ca.finished', time(of.closed_at))}
        {of.light === 'red' && ' · ' + t('ca.light.red')}
      </span>
    )
  }
  if (of.suspended_until !== undefined) return <span class="quiet">{t('ca.did', t('ca.suspendedUntil'), fullTime(of.suspended_until))}</span>
  if (of.deadline === undefined) return <span class="quiet">{t('ca.light.none')}</span>
  const seen = lightOf(of) ?? 'green'
  const l = of.handled_at === undefined || seen === 'red' ? seen : 'green'
  const left = Date.parse(of.deadline) - now()
  return (
    <span class={'mark light-' + l} title={`${t('ca.deadline')} ${fullTime(of.deadline)}`}>
      <LightIcon of={l} />
      <span>
        <span class="word">{known('ca.light.', l)}</span>
        {' · '}
        <span class="nowrap">
          {of.handled_at !== undefined ? t('ca.handledAt', time(of.handled_at)) : left >= 0 ? t('ca.left', span(left)) : t('ca.late', span(-left))}
        </span>
        {long && <span class="quiet"> · {t('ca.until', fullTime(of.deadline))}</span>}
      </span>
    </span>
  )
}

/** dueLight is the light of the limit of a case's stage at this moment. */
export function dueLight(c: Case): Light | undefined {
  if (c.stage_deadline === undefined) return undefined
  if (now() > Date.parse(c.stage_deadline)) return 'red'
  return c.stage_yellow_at !== undefined && now() > Date.parse(c.stage_yellow_at) ? 'yellow' : 'green'
}

/** Due is the light of what is to be done now, with what is left of its limit. */
export function Due({ of, long = false }: { of: Case; long?: boolean }) {
  if (of.closed_at !== undefined) return <span class="quiet">{t('ca.finished', time(of.closed_at))}</span>
  const l = dueLight(of)
  if (of.suspended_until !== undefined) return <span class="quiet">{t('ca.did', t('ca.suspendedUntil'), fullTime(of.suspended_until))}</span>
  if (l === undefined) return <span class="quiet">{t('ca.light.none')}</span>
  const left = Date.parse(of.stage_deadline!) - now()
  return (
    <span class={'mark light-' + l} title={fullTime(of.stage_deadline)}>
      <LightIcon of={l} />
      <span>
        <span class="word">{known('ca.light.', l)}</span>
        {' · '}
        <span class="nowrap">{left >= 0 ? t('ca.left', span(left)) : t('ca.late', span(-left))}</span>
        {long && <span class="quiet"> · {t('ca.until', fullTime(of.stage_deadline))}</span>}
      </span>
    </span>
  )
}

function LightIcon({ of }: { of: Light }) {
  return (
    <svg class="icon" width="16" height="16" viewBox="0 0 20 20" aria-hidden="true">
      {of === 'green' && <circle cx="10" cy="10" r="6.5" fill="none" stroke="currentColor" stroke-width="2" />}
      {of === 'yellow' && (
        <>
          <path d="M10 1.5 19 18H1z" fill="#f2cf3b" stroke="#8a6d00" />
          <path d="M10 7v5M10 14.5v1" stroke="#1c1c1c" stroke-width="2" />
        </>
      )}
      {of === 'red' && (
        <>
          <rect x="1.5" y="1.5" width="17" height="17" rx="2" fill="#c8201f" />
          <path d="M10 5v6M10 14v1.5" stroke="#fff" stroke-width="2.4" />
        </>
      )}
    </svg>
  )
}

/** When is a time, with the whole date as its title. */
export const When = ({ at, ago = false }: { at: string | undefined; ago?: boolean }) =>
  at === undefined ? null : (
    <time dateTime={at} title={ago ? fullTime(at) : `${fullTime(at)} (${age(at)})`}>
      {ago ? age(at) : time(at)}
    </time>
  )

/** Loading, Failed and Empty say why there is nothing to see. */
export const Loading = () => (
  <p class="empty" role="status">
    {t('c.loading')}
  </p>
)

export const Failed = ({ error, again }: { error: string; again: () => void }) => (
  <div class="empty" role="alert">
    <p>
      <Icon name="warn" /> {error}
    </p>
    <button type="button" onClick={again}>
      {t('err.retry')}
    </button>
  </div>
)

/** Wait stands where something is not there yet: it was asked for, or did not come. */
export const Wait = ({ of }: { of: Pick<Loaded<unknown>, 'error' | 'again'> }) => (of.error === '' ? <Loading /> : <Failed error={of.error} again={of.again} />)

/** Listing is a list as far as it is there: that it is waited for, what to say of none, or what shows its n items. */
export function Listing({ of, n, none, children }: { of: Omit<Loaded<unknown>, 'change'>; n: number; none: ComponentChildren; children: ComponentChildren }) {
  if (of.data === undefined) return <Wait of={of} />
  return n === 0 ? <Empty>{none}</Empty> : <>{children}</>
}

/** Paged is a Listing of which more can be asked for. */
export function Paged({ of, n, none, children }: { of: Omit<Listed<unknown>, 'change'>; n: number; none: ComponentChildren; children: ComponentChildren }) {
  const more = of.data?.more ?? false
  return (
    <>
      <Listing of={of} n={n} none={none}>
        {children}
      </Listing>
      {of.growing && of.error !== '' ? (
        <Failed error={of.error} again={of.again} />
      ) : (
        (n > 0 || more) && (
          <p class="quiet foot">
            {t(more ? 'c.first' : 'c.count', n)}{' '}
            {more && (
              <button type="button" disabled={of.growing} onClick={of.longer}>
                {t(of.growing ? 'c.loading' : 'c.more')}
              </button>
            )}
          </p>
        )
      )}
    </>
  )
}

/** Table is a table of rows that a narrow window stacks; the roles keep it a table there. numbers says which heads are over figures. */
export const Table = ({ kind = '', heads, numbers = [], children }: { kind?: string; heads: string[]; numbers?: number[]; children: ComponentChildren }) => (
  <table class={'rows ' + kind} role="table">
    <thead role="rowgroup">
      <tr role="row">
        {heads.map((h, i) => (
          <th role="columnheader" key={i} class={numbers.includes(i) ? 'num' : undefined}>
            {h}
          </th>
        ))}
      </tr>
    </thead>
    <tbody role="rowgroup">{children}</tbody>
  </table>
)

/** Filters are what narrows a list, and the way back to all of it; clear is undefined when nothing is narrowed. */
export const Filters = ({ clear, children }: { clear?: () => void; children: ComponentChildren }) => (
  <div class="filters" role="group" aria-label={t('c.filter')}>
    {children}
    {clear && (
      <button type="button" class="link" onClick={clear}>
        {t('c.clearFilters')}
      </button>
    )}
  </div>
)

/** Choose is a filter with a few choices, [value, name]; any is the name of none. */
export const Choose = ({ label, any, value, of, onChange }: { label: string; any: string; value: string; of: (readonly [string, string])[]; onChange: (v: string) => void }) => (
  <select aria-label={label} value={value} onChange={(e) => onChange(e.currentTarget.value)}>
    <option value="">{any}</option>
    {of.map(([v, name]) => (
      <option key={v} value={v}>
        {name}
      </option>
    ))}
  </select>
)

/** Only is a filter that came with the address; a press takes it away. */
export const Only = ({ children, off }: { children: ComponentChildren; off: () => void }) => (
  <button type="button" class="chip" aria-pressed="true" onClick={off}>
    {children} <Icon name="close" size={14} />
  </button>
)

/** Mend are the buttons of a row that is kept by hand. */
export const Mend = ({ edit, remove }: { edit: () => void; remove: () => void }) => (
  <span class="buttons">
    <button type="button" aria-haspopup="dialog" onClick={edit}>
      {t('c.edit')}
    </button>
    <button type="button" class="ghost" aria-haspopup="dialog" onClick={remove}>
      {t('c.delete')}
    </button>
  </span>
)

/** lazy is a component whose code is loaded when it is first shown. */
export function lazy<P extends object>(name: string, load: () => Promise<ComponentType<P>>): ComponentType<P> {
  return function Lazy(p: P) {
    const code = useLoad('code ' + name, () =>
      load().catch(() => {
        throw new ApiError(0, 'transient', '')
      }),
    )
    const It = code.data
    if (It === undefined) return <Wait of={code} />
    return <It {...p} />
  }
}

export const Empty = ({ children }: { children: ComponentChildren }) => <p class="empty">{children}</p>

/** Modal is a dialog over the page: "box" in the middle, "drawer" at the side, "photo" as large as the window. Escape, the cross and a press beside it close it, but not while it is held. */
export function Modal({
  title,
  kind = 'box',
  held = false,
  onClose,
  children,
}: {
  title: string
  kind?: 'box' | 'drawer' | 'photo'
  held?: boolean
  onClose: () => void
  children: ComponentChildren
}) {
  const ref = useRef<HTMLDialogElement>(null)
  const id = useId()
  // With the page, not after it is painted: a key pressed at once would be lost to the focus that comes after it.
  useLayoutEffect(() => {
    const d = ref.current!
    const before = document.activeElement
    d.showModal()
    return () => {
      d.close()
      // What opened it may be gone by now, as the button of an action that was taken.
      if (before instanceof HTMLElement && before.isConnected) before.focus()
      else document.getElementById('main')?.focus({ preventScroll: true })
    }
  }, [])
  return (
    <dialog
      ref={ref}
      class={'modal ' + kind}
      aria-labelledby={id}
      onCancel={(e) => {
        e.preventDefault()
        if (!held) onClose()
      }}
      // A browser lets a second Escape close a dialog that did not close at the first.
      onKeyDown={(e) => held && e.key === 'Escape' && e.preventDefault()}
      onMouseDown={(e) => e.target === ref.current && !held && onClose()}
    >
      <div class="sheet">
        <header>
          <h2 id={id}>{title}</h2>
          <button type="button" class="ghost" disabled={held} onClick={onClose} aria-label={t('c.close')}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  )
}

/** useBusy runs one thing at a time and says what went wrong. */
export function useBusy(): { busy: boolean; error: string; run: (f: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  return {
    busy,
    error,
    run(f) {
      if (busy) return
      setBusy(true)
      setError('')
      f().then(
        () => setBusy(false),
        (e) => {
          setBusy(false)
          setError(words(e))
        },
      )
    },
  }
}

/** Wrong is a message of a form. */
export const Wrong = ({ text, id }: { text: string; id?: string }) =>
  text === '' ? null : (
    <p class="wrong" role="alert" id={id}>
      <Icon name="warn" size={16} /> {text}
    </p>
  )

/** Decide is the end of a dialog's form: what is wrong, the way back, and the button that does it. */
export const Decide = ({ wrong, busy, does, onClose }: { wrong: string; busy: boolean; does: string; onClose: () => void }) => (
  <>
    <Wrong text={wrong} />
    <footer>
      <button type="button" disabled={busy} onClick={onClose}>
        {t('c.cancel')}
      </button>
      <button type="submit" class="primary" disabled={busy}>
        {does}
      </button>
    </footer>
  </>
)

/** Seen is the end of a dialog that only shows something, like a secret or a report. */
export const Seen = ({ does, onClose }: { does: string; onClose: () => void }) => (
  <footer>
    <button type="button" class="primary" onClick={onClose}>
      {does}
    </button>
  </footer>
)

/** Sure is a dialog that says what something means before it is done. */
export function Sure({ title, children, does, onClose }: { title: string; children: ComponentChildren; does: () => Promise<void>; onClose: () => void }) {
  const { busy, error, run } = useBusy()
  return (
    <Modal title={title} held={busy} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault()
          run(async () => {
            await does()
            onClose()
          })
        }}
      >
        <p>{children}</p>
        <Decide wrong={error} busy={busy} does={title} onClose={onClose} />
      </form>
    </Modal>
  )
}

/** CopyButton copies a text. */
export function CopyButton({ text }: { text: string }) {
  const copy = () => {
    if (navigator.clipboard === undefined) say(t('c.copyFailed'), true)
    else
      navigator.clipboard.writeText(text).then(
        () => say(t('c.copied')),
        () => say(t('c.copyFailed'), true),
      )
  }
  return (
    <button type="button" onClick={copy}>
      <Icon name="copy" size={16} /> {t('c.copy')}
    </button>
  )
}

/** CopyBox shows a text that people take elsewhere. */
export function CopyBox({ text, label }: { text: string; label: string }) {
  return (
    <div class="copybox">
      <pre tabIndex={0} aria-label={label}>
        {text}
      </pre>
      <CopyButton text={text} />
    </div>
  )
}

/** domainOf is the line of business of a device. */
export const domainOf = (model: string): Domain | undefined => state.models.get(model)?.domain

/** modelTitle is the name of a model for people. */
export const modelTitle = (name: string) => text(state.models.get(name)?.title, name)

/** ModelField asks for a model of devices. */
export const ModelField = ({ value, onChange, autofocus }: { value: string; onChange: (m: string) => void; autofocus?: boolean }) => (
  <label>
    {t('de.model')}
    <select autofocus={autofocus} value={value} onChange={(e) => onChange(e.currentTarget.value)}>
      {[...state.models.values()].map((x) => (
        <option key={x.name} value={x.name}>
          {modelTitle(x.name)} ({x.name})
        </option>
      ))}
    </select>
  </label>
)

/** who is the name of somebody who acted. */
export const who = (name: string) => (name === 'citywarden' ? t('c.platform') : name)

/** Search is a field that reports what was typed after a short pause. */
export function Search({ value, label, onChange }: { value: string; label: string; onChange: (s: string) => void }) {
  const [typed, setTyped] = useState(value)
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  useEffect(() => setTyped(value), [value])
  return (
    <span class="search">
      <Icon name="search" size={16} />
      <input
        type="search"
        value={typed}
        placeholder={label}
        aria-label={label}
        onInput={(e) => {
          const s = e.currentTarget.value
          setTyped(s)
          clearTimeout(timer.current)
          timer.current = setTimeout(() => onChange(s.trim()), 250)
        }}
      />
    </span>
  )
}

/** place reads a typed position; undefined for none, 'bad' for what is none. */
export function place(lat: string, lon: string): Point | undefined | 'bad' {
  if (lat.trim() === '' && lon.trim() === '') return undefined
  const p = { lat: Number(lat), lon: Number(lon) }
  return lat.trim() !== '' && lon.trim() !== '' && Math.abs(p.lat) <= 90 && Math.abs(p.lon) <= 180 ? p : 'bad'
}

/** PlaceFields asks for a position, which may be left out unless it is needed. */
export function PlaceFields({
  lat,
  lon,
  setLat,
  setLon,
  needed = false,
  legend = t(needed ? 'de.placeNeeded' : 'de.place'),
}: {
  lat: string
  lon: string
  setLat: (s: string) => void
  setLon: (s: string) => void
  needed?: boolean
  legend?: string
}) {
  return (
    <fieldset>
      <legend>{legend}</legend>
      <div class="pair">
        <label>
          {t('de.lat')}
          <input inputMode="decimal" required={needed} value={lat} placeholder="24.117" onInput={(e) => setLat(e.currentTarget.value)} />
        </label>
        <label>
          {t('de.lon')}
          <input inputMode="decimal" required={needed} value={lon} placeholder="117.613" onInput={(e) => setLon(e.currentTarget.value)} />
        </label>
      </div>
    </fieldset>
  )
}
