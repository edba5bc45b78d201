// Intake (受理): what came in and waits to be accepted, verified or filed, and
// the entry of what somebody says by telephone.
import { useEffect, useState } from 'preact/hooks'
import { enc, get, post, query } from '../api'
import { go, may, say, state, useLoad } from '../app'
import { fullTime } from '../format'
import { t, text } from '../i18n'
import { Icon, lazy, place, PlaceFields, useBusy, Wrong } from '../ui'
import { href } from '../url'
import type { Case, Device, Duplicate, List, MapInfo, Nearby, Source } from '../types'
import { Alike, ClassField, classOf } from './act'
import { attach } from './photos'
import { byDue, Desk, grouped, useCases } from './work'

const waiting = ['reported', 'verifying', 'pending_filing']
const PickMap = lazy('pickmap', async () => (await import('../pickmap')).PickMap)

/** Intake is the desk of those who accept, send to verify and file. */
export function Intake({ search }: { search: string }) {
  const loaded = useCases('intake', { open: 'true' }, (c) => waiting.includes(c.stage))
  const items = (loaded.data?.items ?? []).filter((c) => waiting.includes(c.stage)).sort(byDue)
  return (
    <>
      <div class="head">
        <h1>{t('nav.intake')}</h1>
        <a class="button primary" href="/intake/new">
          <Icon name="plus" size={16} /> {t('ca.open')}
        </a>
      </div>
      <Desk
        path="/intake"
        search={search}
        loaded={loaded}
        groups={grouped(items, (c) => t(`stage.${c.stage}` as 'stage.reported'), waiting.map((s) => t(`stage.${s}` as 'stage.reported')))}
        main={(c) => (c.stage === 'reported' ? 'register' : c.stage === 'pending_filing' ? (state.user?.role === 'acceptor' ? 'send_verify' : 'file') : '')}
        hint={t('wk.hintIntake')}
        empty={t('wk.noneIntake')}
      />
    </>
  )
}

const sources: Source[] = ['hotline', 'operator', 'transfer', 'citizen', 'app']

/** Entry registers what no sensor reports. */
export function Entry({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const citizen = state.user?.role === 'citizen'
  const own = citizen || state.user?.role === 'officer' // what they saw themselves
  const streets = useLoad('streets', async (signal) =>
    citizen && state.info?.citizens ? (await get<{ map: MapInfo }>('/public/report', signal)).map : undefined,
  )
  const [source, setSource] = useState<Source>(own ? (state.user?.role as Source) : q.has('device') ? 'operator' : 'hotline')
  const [kind, setKind] = useState('')
  const [title, setTitle] = useState('')
  const [description, setDescription] = useState('')
  const [name, setName] = useState('')
  const [phone, setPhone] = useState('')
  const [at, setAt] = useState(q.get('device') ?? '')
  const [lat, setLat] = useState('')
  const [lon, setLon] = useState('')
  const [photos, setPhotos] = useState<File[]>([])
  const [same, setSame] = useState('')
  const [component, setComponent] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  useEffect(() => setWrong(''), [kind, title, lat, lon])
  const chosen = classOf(kind)
  const point = place(lat, lon)
  const spot = point === 'bad' ? undefined : point
  const near = useNear(chosen?.code, spot)
  const around = useComponents(citizen ? undefined : chosen?.code, spot)
  useEffect(() => {
    setSame('')
    setComponent('')
  }, [chosen?.code, lat, lon])
  const reported = ['hotline', 'citizen', 'app', 'transfer'].includes(source)
  const submit = (e: Event) => {
    e.preventDefault()
    if (title.trim() === '') return setWrong(t('ca.badTitle'))
    if (chosen === undefined) return setWrong(t('ca.badClass'))
    if (point === 'bad') return setWrong(t('de.badPlace'))
    run(async () => {
      if (at.trim() !== '') await get<Device>('/devices/' + enc(at.trim())) // a name that is not there says so
      const c = await post<Case>('/cases', {
        class: chosen.code,
        title: title.trim(),
        description: description.trim() || undefined,
        device: at.trim() || undefined,
        location: point,
        component: component || undefined,
        source: own ? undefined : source,
        reporter: reported ? { name: name.trim() || undefined, phone: phone.trim() || undefined } : undefined,
      })
      for (const f of photos) await attach(c.id, 'near', f)
      if (same !== '') await post<Case>(`/cases/${enc(c.id)}/actions/merge`, { case: same })
      say(t('ca.opens', c.id))
      go(may('intake') && same === '' ? href(['intake'], { case: c.id }) : href(['cases', same || c.id]))
    })
  }
  const mayMerge = may('intake')
  return (
    <>
      <p class="crumb">
        <a href={may('intake') ? '/intake' : '/cases'}>
          <Icon name="back" size={14} /> {may('intake') ? t('nav.intake') : t('ca.title')}
        </a>
      </p>
      <h1>{t('ca.open')}</h1>
      <p class="quiet">{t('ca.openText')}</p>
      <form class="entry" onSubmit={submit}>
        <div class="fields">
          {!own && (
            <label>
              {t('ca.source')}
              <select value={source} onChange={(e) => setSource(e.currentTarget.value as Source)}>
                {sources.map((s) => (
                  <option key={s} value={s}>
                    {t(`ca.source.${s}`)}
                  </option>
                ))}
              </select>
            </label>
          )}
          {reported && (
            <div class="pair">
              <label>
                {t('wk.reporter')}
                <input value={name} maxLength={100} autocomplete="off" onInput={(e) => setName(e.currentTarget.value)} />
              </label>
              <label>
                {t('wk.phone')}
                <input type="tel" value={phone} maxLength={40} autocomplete="off" onInput={(e) => setPhone(e.currentTarget.value)} />
              </label>
            </div>
          )}
          <label>
            {t('ca.openTitle')}
            <input autofocus value={title} maxLength={200} onInput={(e) => setTitle(e.currentTarget.value)} aria-invalid={wrong === t('ca.badTitle')} />
          </label>
          <ClassField value={kind} onInput={setKind} wrong={wrong === t('ca.badClass')} />
          <label>
            {t('ca.openMore')}
            <textarea rows={4} maxLength={4000} value={description} onInput={(e) => setDescription(e.currentTarget.value)} />
          </label>
          {!citizen && (
            <label>
              {t('ca.openDevice')}
              <input value={at} autocapitalize="off" spellcheck={false} onInput={(e) => setAt(e.currentTarget.value)} />
            </label>
          )}
          {!citizen && (
            <label class="button">
              <Icon name="camera" size={16} /> {photos.length > 0 ? t('ph.chosen', photos.length) : t('ph.add')}
              <input class="hidden" type="file" accept="image/jpeg,image/png,image/webp" multiple onChange={(e) => setPhotos([...(e.currentTarget.files ?? [])])} />
            </label>
          )}
        </div>
        <div class="fields">
          {(!citizen || streets.data !== undefined) && (
            <PickMap
              at={spot}
              of={streets.data}
              onPick={(p) => {
                setLat(p.lat.toFixed(6))
                setLon(p.lon.toFixed(6))
              }}
            />
          )}
          <PlaceFields lat={lat} lon={lon} setLat={setLat} setLon={setLon} />
          {around.length > 0 && (
            <label>
              {t('ca.openComponent')}
              <select value={component} onChange={(e) => setComponent(e.currentTarget.value)}>
                <option value="">{t('ca.openNoComponent')}</option>
                {around.map((x) => (
                  <option key={x.id} value={x.id}>
                    {[`${Math.round(x.distance_m)} m`, x.name, x.address, x.id].filter(Boolean).join(' · ')}
                  </option>
                ))}
              </select>
            </label>
          )}
          <div role="status">
            {near.length > 0 && (
              <fieldset class="note">
                <legend class="hidden">{t('wk.near', near.length)}</legend>
                <p>
                  <Icon name="warn" size={16} /> <b>{t('wk.near', near.length)}</b>
                </p>
                {mayMerge ? (
                  <>
                    <label class="choice">
                      <input type="radio" name="duplicate" checked={same === ''} onChange={() => setSame('')} />
                      <span>{t('wk.notSame')}</span>
                    </label>
                    <Alike of={near} chosen={same} onChoose={setSame} />
                  </>
                ) : (
                  <ul class="bare">
                    {near.map((d) => (
                      <li key={d.case.id}>
                        {citizen ? text(d.case.title, d.case.id) : <a href={href(['cases', d.case.id])}>{text(d.case.title, d.case.id)}</a>}{' '}
                        <span class="quiet">
                          {Math.round(d.distance_m)} m · {fullTime(d.case.opened)}
                        </span>
                      </li>
                    ))}
                  </ul>
                )}
              </fieldset>
            )}
          </div>
          <Wrong text={wrong || error} />
          <footer class="buttons">
            <button type="submit" class="primary" disabled={busy}>
              {same === '' ? t('ca.open') : t('wk.openSame')}
            </button>
          </footer>
        </div>
      </form>
    </>
  )
}

/** useNear asks for cases that one of that class and place may be a duplicate of. */
function useNear(code: string | undefined, at: { lat: number; lon: number } | undefined): Duplicate[] {
  const ask = code === undefined || at === undefined ? '' : query({ class: code, lat: at.lat, lon: at.lon })
  const loaded = useLoad('near ' + ask, async (signal) => (ask === '' ? undefined : get<List<Duplicate>>('/duplicates' + ask, signal)))
  return loaded.data?.items ?? []
}

/** useComponents asks for the components of that class around a place, the nearest first; events are about none. */
function useComponents(code: string | undefined, at: { lat: number; lon: number } | undefined): Nearby[] {
  const ask = !code?.startsWith('component/') || at === undefined ? '' : query({ class: code, lat: at.lat, lon: at.lon, within: 200, limit: 10 })
  const loaded = useLoad('components ' + ask, async (signal) => (ask === '' ? undefined : get<List<Nearby>>('/components/nearby' + ask, signal)))
  return loaded.data?.items ?? []
}
