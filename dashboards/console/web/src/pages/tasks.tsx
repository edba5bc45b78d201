// The grid officer's phone page: what to verify and to check, the nearest first,
// each answered with photos and the place where it was answered.
import { useState } from 'preact/hooks'
import { ApiError, enc, get, post } from '../api'
import { say, state, useLoad, useTick, whereOf, words } from '../app'
import { num } from '../format'
import { distance, whereAmI, type Spot } from '../geo'
import { className, known, t, text } from '../i18n'
import { Due, Icon, Listing, useBusy, Wait, Wrong } from '../ui'
import { href } from '../url'
import type { Action, Case, Stage } from '../types'
import { Photos } from './photos'
import { byDue, isReported, Reported, useCases } from './work'

/** answers are what an officer says of a case at a stage; the second and third need a reason. */
const answers: Partial<Record<Stage, Action[]>> = { verifying: ['exists', 'not_exists', 'unable'], checking: ['verify', 'rework'] }
const agrees = ['exists', 'verify']

/** near says how far a case is, in words; '' when that is not known. */
export const near = (c: Case, spot: Spot | undefined) =>
  c.location === undefined || spot === undefined ? '' : metres(distance(spot, c.location))

const metres = (m: number) => (m < 1000 ? `${Math.round(m)} m` : `${num(Math.round(m / 100) / 10)} km`)

/** witness is the line that an answer carries of where it was given; '' when that is not known. */
export const witness = (c: Case, spot: Spot | undefined) =>
  spot === undefined
    ? ''
    : t('ta.witness', `${spot.lat.toFixed(6)}, ${spot.lon.toFixed(6)}`, spot.accuracy) + (c.location === undefined ? '' : t('ta.witnessFar', near(c, spot)))

/** byPlace sorts the nearest first when it is known where one is, else what is due first. */
export function byPlace(spot: Spot | undefined): (a: Case, b: Case) => number {
  const far = (c: Case) => (spot === undefined || c.location === undefined ? Infinity : distance(spot, c.location))
  return (a, b) => {
    const x = far(a)
    const y = far(b)
    return x === y ? byDue(a, b) : x - y
  }
}

/** Tasks lists what was sent to the officer. */
export function Tasks() {
  useTick(1000)
  const me = state.user?.name ?? ''
  const all = state.user?.role === 'admin'
  const mine = (c: Case) => answers[c.stage] !== undefined && (all || c.officer === me)
  const loaded = useCases('tasks ' + me, { open: 'true', ...(!all && { officer: me }) }, mine)
  const [spot, setSpot] = useState<Spot>()
  const [denied, setDenied] = useState(false)
  const locate = () => whereAmI().then((s) => (setSpot(s), setDenied(false)), () => setDenied(true))
  const items = (loaded.data?.items ?? []).filter(mine).sort(byPlace(spot))
  return (
    <div class="phone">
      <div class="head">
        <h1>{t('nav.tasks')}</h1>
        <button type="button" onClick={() => void locate()}>
          <Icon name="pin" size={16} /> {spot === undefined ? t('ta.locate') : t('ta.located', spot.accuracy)}
        </button>
        <a class="button primary" href="/intake/new">
          <Icon name="plus" size={16} /> {t('ta.report')}
        </a>
      </div>
      {denied && <p class="note">{t('ta.denied')}</p>}
      <Listing of={loaded} n={items.length} none={t('ta.none')}>
        <ul class="bare">
          {items.map((c) => (
            <li key={c.id}>
              <a class="card task" href={href(['tasks', c.id])}>
                <span class="tag">{c.stage === 'verifying' ? t('ta.toVerify') : t('ta.toCheck')}</span>
                <b>{text(c.title, c.id)}</b>
                <Due of={c} />
                <span class="sub">
                  {[whereOf(c), className(c), c.grid, near(c, spot)].filter(Boolean).join(' · ')}
                  {all && c.officer && ` · ${c.officer}`}
                </span>
              </a>
            </li>
          ))}
        </ul>
      </Listing>
    </div>
  )
}

/** Task is one of them. */
export function Task({ id }: { id: string }) {
  useTick(1000)
  const loaded = useLoad('case ' + id, (signal) => get<Case>('/cases/' + enc(id), signal))
  const [note, setNote] = useState('')
  const [place, setPlace] = useState(true)
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const c = loaded.data
  if (c === undefined) return <Wait of={loaded} />
  const may = (answers[c.stage] ?? []).filter((a) => (c.actions ?? []).includes(a))
  const first = (c.timeline ?? [])[0]
  const answer = (action: string) => {
    if (!agrees.includes(action) && note.trim() === '') return setWrong(t('ca.noteMissing'))
    setWrong('')
    run(async () => {
      const spot = place ? await whereAmI().catch(() => undefined) : undefined
      const said = [note.trim(), witness(c, spot)].filter(Boolean).join('\n')
      try {
        await post<Case>(`/cases/${enc(c.id)}/actions/${enc(action)}`, { note: said || undefined, revision: c.revision })
        say(t('ca.did', known('did.', action), text(c.title, c.id)))
        setNote('')
      } catch (e) {
        if (!(e instanceof ApiError) || e.status !== 409) throw e
        say(words(e), true)
      }
      loaded.again()
    })
  }
  return (
    <div class="phone">
      <p class="crumb">
        <a href="/tasks">
          <Icon name="back" size={14} /> {t('nav.tasks')}
        </a>
      </p>
      <h1>{text(c.title, c.id)}</h1>
      <p class="lead">
        <span class="tag">{t(`stage.${c.stage}`)}</span> <Due of={c} long />
      </p>
      <p class="quiet">
        {[whereOf(c), c.id, className(c), c.grid, c.department].filter(Boolean).join(' · ')}
      </p>
      {c.location && (
        <p>
          <a class="button" href={href([], { at: `${c.location.lon},${c.location.lat}`, case: c.id })}>
            <Icon name="map" size={16} /> {t('map.show')}
          </a>{' '}
          <a class="button" href={`geo:${c.location.lat},${c.location.lon}`}>
            <Icon name="pin" size={16} /> {t('ta.navigate')}
          </a>
        </p>
      )}
      <p class="note">{c.stage === 'checking' ? t('ca.did', t('ca.closing'), c.closing_condition || '–') : t('ca.did', t('ca.filing'), c.filing_condition || '–')}</p>
      <Reported of={c} />
      {!isReported(c) && first && text(first.text, first.note) && <p class="said">{text(first.text, first.note)}</p>}
      <Photos of={c} />
      {may.length === 0 ? (
        <p class="note">{t('ca.nothing')}</p>
      ) : (
        <section class="card">
          <h2>{c.stage === 'checking' ? t('ta.isDone') : t('ta.isReal')}</h2>
          <form onSubmit={(e) => e.preventDefault()}>
            <label>
              {t('ta.note')}
              <textarea rows={3} value={note} onInput={(e) => setNote(e.currentTarget.value)} aria-invalid={wrong !== ''} />
            </label>
            <label class="check">
              <input type="checkbox" checked={place} onChange={(e) => setPlace(e.currentTarget.checked)} />
              {t('ta.withPlace')}
            </label>
            <Wrong text={wrong || error} />
            <div class="buttons">
              {may.map((a) => (
                <button type="button" key={a} class={agrees.includes(a) ? 'primary' : ''} disabled={busy} onClick={() => answer(a)}>
                  {known('act.', a)}
                </button>
              ))}
            </div>
          </form>
        </section>
      )}
    </div>
  )
}
