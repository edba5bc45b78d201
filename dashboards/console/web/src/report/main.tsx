// The citizen's phone page (随手拍): report with photo and place, and see how far
// it is. Nobody signs in; it uses the public part of the API alone.
import { render, type ComponentChildren, type ComponentType } from 'preact'
import { useEffect, useId, useState } from 'preact/hooks'
import '../style.css'
import { ApiError, enc, get, query, send } from '../api'
import { useWhereAmI } from '../geo'
import { firstLang, type Lang } from '../lang'
import { wear, whenPreferred } from '../look'
import { shrink } from '../picture'
import { remember, remembered } from '../remember'
import type { MapInfo, Point, Text } from '../types'
import { forget, keep, kept, type Kept } from './mine'
import { linked, type Place } from './spot'
import { textIn, w } from './words'

interface Choices {
  groups: { code: string; name: Text; classes: { code: string; name: Text }[] }[]
  max_photos: number
  map: MapInfo
}

/** Thing is a component near the place. */
interface Thing {
  id: string
  name: string
  distance_m: number
}

interface Progress {
  number: string
  class: Text
  progress: string
  progress_text: Text
  department?: string
  reported: string
  deadline?: string
  closed?: string
}

/** said is what the platform answered, or that it did not. */
const said = (lang: Lang, e: unknown) => (e instanceof ApiError && e.status > 0 ? e.message : w(lang, 'offline'))

function App() {
  const [lang, setLang] = useState<Lang>(() => firstLang(remembered('lang'), navigator.languages))
  const [choices, setChoices] = useState<Choices>()
  const [failed, setFailed] = useState<ApiError>()
  const [mine, setMine] = useState<Kept[]>(kept)
  const [sent, setSent] = useState<Kept>()
  const load = () => {
    setFailed(undefined)
    get<Choices>('/public/report').then(setChoices, setFailed)
  }
  useEffect(load, [])
  useEffect(() => {
    document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en'
    document.title = w(lang, 'title')
  }, [lang])
  const choose = (l: Lang) => {
    remember('lang', l)
    setLang(l)
  }
  return (
    <main class="page phone citizen">
      <div class="head">
        <h1>{w(lang, 'title')}</h1>
        <div class="segments" role="group" aria-label={w(lang, 'language')}>
          <button type="button" lang="zh-CN" aria-pressed={lang === 'zh'} onClick={() => choose('zh')}>
            中文
          </button>
          <button type="button" lang="en" aria-pressed={lang === 'en'} onClick={() => choose('en')}>
            English
          </button>
        </div>
      </div>
      {failed !== undefined ? (
        <div class="empty" role="alert">
          <p>{failed.status === 404 ? w(lang, 'off') : said(lang, failed)}</p>
          {failed.status !== 404 && (
            <button type="button" onClick={load}>
              {w(lang, 'again')}
            </button>
          )}
        </div>
      ) : choices === undefined ? (
        <p class="empty" role="status">
          {w(lang, 'loading')}
        </p>
      ) : sent !== undefined ? (
        <section class="card" role="status">
          <h2>{w(lang, 'done')}</h2>
          <p>{w(lang, 'keep')}</p>
          <dl>
            <dt>{w(lang, 'number')}</dt>
            <dd>
              <code>{sent.number}</code>
            </dd>
            <dt>{w(lang, 'secret')}</dt>
            <dd>
              <code>{sent.secret}</code>
            </dd>
          </dl>
          <button type="button" class="primary" autofocus onClick={() => setSent(undefined)}>
            {w(lang, 'another')}
          </button>
        </section>
      ) : (
        <Form
          lang={lang}
          choices={choices}
          onSent={(k) => {
            setSent(k)
            setMine(keep(k))
            scrollTo(0, 0)
          }}
        />
      )}
      {choices !== undefined && <Mine lang={lang} of={mine} onAsk={(k) => setMine(keep(k))} onForget={(n) => setMine(forget(n))} />}
    </main>
  )
}

function Form({ lang, choices, onSent }: { lang: Lang; choices: Choices; onSent: (k: Kept) => void }) {
  const [photos, setPhotos] = useState<{ file: File; url: string }[]>([])
  const [group, setGroup] = useState('')
  const [kind, setKind] = useState('')
  const [what, setWhat] = useState('')
  const [spot, setSpot] = useState<Place | undefined>(() => linked(location.search))
  const [things, setThings] = useState<Thing[]>([])
  const [thing, setThing] = useState('')
  const [pointing, setPointing] = useState(false)
  const [address, setAddress] = useState('')
  const [name, setName] = useState('')
  const [phone, setPhone] = useState('')
  const [busy, setBusy] = useState(false)
  const [wrong, setWrong] = useState('')
  const { looking, locate, stop } = useWhereAmI((s) => setSpot({ ...s, from: 'phone', crs: 'WGS84' }))
  // Which one it is helps, and is not needed: what can't be asked for is not offered.
  useEffect(() => {
    setThings([])
    setThing('')
    if (!kind.startsWith('component/') || spot === undefined) return
    const abort = new AbortController()
    get<{ items: Thing[] }>('/public/components' + query({ class: kind, lat: spot.lat, lon: spot.lon, crs: spot.crs }), abort.signal).then(
      (l) => setThings(l.items),
      () => {},
    )
    return () => abort.abort()
  }, [kind, spot])
  const classes = choices.groups.find((g) => g.code === group)?.classes ?? []
  const submit = (e: Event) => {
    e.preventDefault()
    if (busy) return
    if (kind === '') return setWrong(w(lang, 'needKind'))
    if (what.trim() === '' && photos.length === 0) return setWrong(w(lang, 'needWhat'))
    if (spot === undefined && address.trim() === '') return setWrong(w(lang, 'needPlace'))
    setWrong('')
    setBusy(true)
    deliver().then(onSent, (e: unknown) => {
      setBusy(false)
      setWrong(said(lang, e))
    })
  }
  const deliver = async () => {
    const form = new FormData()
    const fields = { class: kind, component: thing, description: what.trim(), address: address.trim(), name: name.trim(), phone: phone.trim() }
    for (const [k, v] of Object.entries(fields)) if (v !== '') form.append(k, v)
    if (spot !== undefined) {
      form.append('lat', spot.lat.toFixed(6))
      form.append('lon', spot.lon.toFixed(6))
      form.append('crs', spot.crs)
    }
    for (const p of photos) form.append('photo', await shrink(p.file), 'photo.jpg')
    return send<Kept>('/public/reports', form)
  }
  return (
    <form class="card" onSubmit={submit} onInput={() => setWrong('')}>
      <p>{w(lang, 'lead')}</p>
      {photos.length > 0 && (
        <ul class="bare photos">
          {photos.map((p, i) => (
            <li key={p.url}>
              <img src={p.url} alt={w(lang, 'taken', i + 1)} />
              <button type="button" aria-label={w(lang, 'remove', i + 1)} onClick={() => {
                URL.revokeObjectURL(p.url)
                setPhotos(photos.filter((x) => x !== p))
              }}>
                ✕
              </button>
            </li>
          ))}
        </ul>
      )}
      {photos.length < choices.max_photos && (
        <label class="button">
          {w(lang, 'photo', choices.max_photos)}
          <input
            class="hidden"
            type="file"
            accept="image/jpeg,image/png,image/webp"
            multiple
            onChange={(e) => {
              const more = [...(e.currentTarget.files ?? [])].map((file) => ({ file, url: URL.createObjectURL(file) }))
              setPhotos([...photos, ...more].slice(0, choices.max_photos))
              e.currentTarget.value = ''
            }}
          />
        </label>
      )}
      <Select
        label={w(lang, 'group')}
        none={w(lang, 'choose')}
        value={group}
        of={choices.groups.map((g) => [g.code, textIn(lang, g.name)])}
        onChange={(v) => {
          setGroup(v)
          setKind('')
        }}
      />
      {classes.length > 0 && (
        <Select label={w(lang, 'kind')} none={w(lang, 'choose')} value={kind} of={classes.map((k) => [k.code, textIn(lang, k.name)])} onChange={setKind} />
      )}
      <label>
        {w(lang, 'what')}
        <textarea rows={3} maxLength={4000} value={what} onInput={(e) => setWhat(e.currentTarget.value)} />
      </label>
      <fieldset class="fields">
        <legend>{w(lang, 'where')}</legend>
        <div class="buttons">
          <button type="button" disabled={looking === 'now'} onClick={locate}>
            {w(lang, looking === 'now' ? 'locating' : 'locate')}
          </button>
          <button type="button" aria-expanded={pointing} onClick={() => setPointing(!pointing)}>
            {w(lang, pointing ? 'noMap' : 'onMap')}
          </button>
        </div>
        {pointing && <Pick lang={lang} of={choices.map} at={spot} onPick={(p) => (stop(), setSpot({ ...p, from: 'map', crs: 'WGS84' }))} />}
        <p role="status" class="small">
          {looking === 'failed' ? w(lang, 'notLocated') : spot !== undefined && placed(lang, spot)}
        </p>
        {things.length > 0 && (
          <Select
            label={w(lang, 'which')}
            none={w(lang, 'notKnown')}
            value={thing}
            of={things.map((x) => [x.id, `${x.name} · ${Math.round(x.distance_m)} m · ${x.id}`])}
            onChange={setThing}
          />
        )}
        <Input label={w(lang, spot === undefined ? 'address' : 'addressMore')} value={address} max={300} onInput={setAddress} />
      </fieldset>
      <fieldset class="fields">
        <legend>{w(lang, 'person')}</legend>
        <Input label={w(lang, 'name')} value={name} max={100} complete="name" onInput={setName} />
        <Input label={w(lang, 'phone')} value={phone} max={40} complete="tel" onInput={setPhone} />
      </fieldset>
      <Wrong>{wrong}</Wrong>
      <button type="submit" class="primary" disabled={busy}>
        {w(lang, busy ? 'sending' : 'send')}
      </button>
    </form>
  )
}

/** placed says where the report will stand, and how that is known. */
function placed(lang: Lang, p: Place): string {
  const at = `${p.lat.toFixed(5)}, ${p.lon.toFixed(5)}`
  if (p.from === 'phone') return w(lang, 'located', at, p.accuracy ?? 0)
  return p.from === 'map' ? w(lang, 'pointed', at) : w(lang, 'linked', at, p.crs)
}

interface PickProps {
  at: Point | undefined
  onPick: (p: Point) => void
  of: MapInfo
}

/** Pick is the map to point at the place; it is loaded when it is asked for. */
function Pick({ lang, at, ...more }: { lang: Lang; at: Place | undefined } & Omit<PickProps, 'at'>) {
  const [code, setCode] = useState<{ Map: ComponentType<PickProps> }>()
  const [failed, setFailed] = useState(false)
  useEffect(() => {
    Promise.all([import('../pickmap'), import('../i18n')]).then(
      ([m, words]) => {
        words.setLang(lang)
        setCode({ Map: m.PickMap })
      },
      () => setFailed(true),
    )
  }, [])
  if (failed) return <Wrong>{w(lang, 'offline')}</Wrong>
  // What a link says in other coordinates would stand in the wrong place here.
  return code === undefined ? <p class="quiet">{w(lang, 'loading')}</p> : <code.Map at={at?.crs === 'WGS84' ? at : undefined} {...more} />
}

/** Mine shows how far the reports of this phone are, and asks for another by number and code. */
function Mine({ lang, of, onAsk, onForget }: { lang: Lang; of: Kept[]; onAsk: (k: Kept) => void; onForget: (number: string) => void }) {
  const [number, setNumber] = useState('')
  const [secret, setSecret] = useState('')
  const [wrong, setWrong] = useState('')
  const submit = (e: Event) => {
    e.preventDefault()
    const one = { number: number.trim(), secret: secret.trim() }
    if (one.number === '' || one.secret === '') return
    progress(one).then(
      () => {
        setWrong('')
        setNumber('')
        setSecret('')
        onAsk(one)
      },
      (e: ApiError) => setWrong(e.status === 404 ? w(lang, 'unknown') : said(lang, e)),
    )
  }
  return (
    <section class="card">
      <h2>{w(lang, 'mine')}</h2>
      {of.length > 0 && (
        <ul class="bare">
          {of.map((k) => (
            <One key={k.number} lang={lang} of={k} onForget={() => onForget(k.number)} />
          ))}
        </ul>
      )}
      <form onSubmit={submit}>
        <Input label={w(lang, 'number')} value={number} max={64} onInput={setNumber} />
        <Input label={w(lang, 'secret')} value={secret} max={64} onInput={setSecret} />
        <Wrong>{wrong}</Wrong>
        <button type="submit">{w(lang, 'ask')}</button>
      </form>
    </section>
  )
}

const progress = (k: Kept) => get<Progress>('/public/reports/' + enc(k.number), undefined, { 'Report-Secret': k.secret })

function One({ lang, of, onForget }: { lang: Lang; of: Kept; onForget: () => void }) {
  const [got, set] = useState<Progress>()
  const [wrong, setWrong] = useState<ApiError>()
  const load = () => {
    progress(of).then((p) => (set(p), setWrong(undefined)), setWrong)
  }
  useEffect(load, [of.number, of.secret])
  const at = (s: string) => new Intl.DateTimeFormat(lang === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'medium', timeStyle: 'short' }).format(Date.parse(s))
  return (
    <li class="report-one">
      <b>{got === undefined ? of.number : textIn(lang, got.class)}</b>
      <span role="status">{got !== undefined ? textIn(lang, got.progress_text) : wrong === undefined ? w(lang, 'loading') : wrong.status === 404 ? w(lang, 'unknown') : said(lang, wrong)}</span>
      {got !== undefined && (
        <span class="sub">
          {[
            `${w(lang, 'number')} ${of.number}`,
            `${w(lang, 'reported')} ${at(got.reported)}`,
            got.department && `${w(lang, 'department')} ${got.department}`,
            got.closed ? `${w(lang, 'closed')} ${at(got.closed)}` : got.deadline && `${w(lang, 'deadline')} ${at(got.deadline)}`,
          ]
            .filter(Boolean)
            .join(' · ')}
        </span>
      )}
      <span class="buttons">
        <button type="button" onClick={load}>
          {w(lang, 'refresh')}
        </button>
        <button type="button" onClick={onForget}>
          {w(lang, 'forget')}
        </button>
      </span>
    </li>
  )
}

function Select({ label, none, value, of, onChange }: { label: string; none: string; value: string; of: [string, string][]; onChange: (v: string) => void }) {
  return (
    <label>
      {label}
      <select value={value} onChange={(e) => onChange(e.currentTarget.value)}>
        <option value="">{none}</option>
        {of.map(([v, text]) => (
          <option key={v} value={v}>
            {text}
          </option>
        ))}
      </select>
    </label>
  )
}

function Input({ label, value, max, complete, onInput }: { label: string; value: string; max: number; complete?: string; onInput: (v: string) => void }) {
  const id = useId()
  return (
    <label for={id}>
      {label}
      <input id={id} inputMode={complete === 'tel' ? 'tel' : undefined} value={value} maxLength={max} autocomplete={complete ?? 'off'} onInput={(e) => onInput(e.currentTarget.value)} />
    </label>
  )
}

const Wrong = ({ children }: { children: ComponentChildren }) =>
  children === '' ? null : (
    <p class="wrong" role="alert">
      {children}
    </p>
  )

const paint = () => wear('auto', false)
whenPreferred(paint)
paint()
render(<App />, document.getElementById('app')!)
