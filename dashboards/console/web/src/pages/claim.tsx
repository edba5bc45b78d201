// Claiming a device: who mounts it says with the secret of its box where it is.
// The address may name the device, as the code on its box does: /claim?id=…
import { useEffect, useState } from 'preact/hooks'
import { ApiError, enc, get, post, query } from '../api'
import { useLoad } from '../app'
import { useWhereAmI } from '../geo'
import { t } from '../i18n'
import { reason } from '../reasons'
import { Icon, lazy, place, PlaceFields, useBusy, Wrong } from '../ui'
import { href } from '../url'
import type { Device, List, Nearby, Point } from '../types'
import { useSites } from './attributes'
import { Sections } from './sections'

const PickMap = lazy('pickmap', async () => (await import('../pickmap')).PickMap)

/** within is how far from the place its components are offered, metres. */
const within = 50

export function Claim({ search }: { search: string }) {
  const [id, setID] = useState(() => new URLSearchParams(search).get('id') ?? '')
  const [secret, setSecret] = useState('')
  const [name, setName] = useState('')
  const [lat, setLat] = useState('')
  const [lon, setLon] = useState('')
  const [component, setComponent] = useState('')
  const [site, setSite] = useState('')
  const [wrong, setWrong] = useState('')
  const [done, setDone] = useState<Device>()
  const { busy, error, run } = useBusy()
  const sites = useSites()
  const point = place(lat, lon)
  const spot = point === 'bad' ? undefined : point
  const around = useAround(spot)
  useEffect(() => setWrong(''), [id, secret, lat, lon, component, site])
  const put = (p: Point) => {
    setLat(p.lat.toFixed(6))
    setLon(p.lon.toFixed(6))
  }
  const { looking, locate, stop } = useWhereAmI(put)
  const submit = (e: Event) => {
    e.preventDefault()
    setWrong('')
    setDone(undefined)
    if (point === 'bad') return setWrong(t('de.badPlace'))
    if (point === undefined && component.trim() === '' && site === '') return setWrong(t('cl.noPlace'))
    run(async () => {
      try {
        const d = await post<Device>(`/devices/${enc(id.trim())}/claim`, {
          secret: secret || undefined,
          name: name.trim() || undefined,
          location: point,
          component: component.trim() || undefined,
          site: site || undefined,
        })
        setDone(d)
        // The next one is another, and not in the same place; it may be of the same site.
        for (const set of [setID, setSecret, setName, setLat, setLon, setComponent]) set('')
        stop()
      } catch (e) {
        if (!(e instanceof ApiError) || (e.status !== 403 && e.status !== 409)) throw e
        setWrong(t('cl.refused', reason(e.message)))
      }
    })
  }
  return (
    <>
      <div class="head">
        <h1>{t('cl.title')}</h1>
      </div>
      <Sections at="claim" />
      <p class="lead quiet">{t('cl.text')}</p>
      <form class="entry" onSubmit={submit}>
        <div class="fields">
          <label>
            {t('de.id')}
            <input value={id} required pattern=".*\S.*" maxLength={64} autofocus autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setID(e.currentTarget.value)} />
            <span class="quiet small">{t('cl.idHint')}</span>
          </label>
          <label>
            {t('cl.secret')}
            <input value={secret} maxLength={128} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setSecret(e.currentTarget.value)} />
            <span class="quiet small">{t('cl.secretHint')}</span>
          </label>
          <label>
            {t('cl.name')}
            <input value={name} maxLength={200} autocomplete="off" onInput={(e) => setName(e.currentTarget.value)} />
          </label>
          {(sites.data ?? []).length > 0 && (
            <label>
              {t('cl.site')}
              <select value={site} onChange={(e) => setSite(e.currentTarget.value)}>
                <option value="">–</option>
                {sites.data!.map((s) => (
                  <option key={s.id} value={s.id}>
                    {s.name}
                  </option>
                ))}
              </select>
            </label>
          )}
        </div>
        <div class="fields">
          <div>
            <button type="button" disabled={looking === 'now'} onClick={locate}>
              <Icon name="pin" size={16} /> {t(looking === 'now' ? 'cl.locating' : 'cl.locate')}
            </button>
            <span class="sub" role="status">
              {looking === 'failed' ? t('cl.notLocated') : typeof looking === 'number' && t('cl.located', looking)}
            </span>
          </div>
          <PickMap
            at={spot}
            onPick={(p) => {
              stop()
              put(p)
            }}
          />
          <PlaceFields lat={lat} lon={lon} setLat={(s) => (stop(), setLat(s))} setLon={(s) => (stop(), setLon(s))} legend={t('de.placeNeeded')} />
          <label>
            {t('cl.component')}
            <input value={component} maxLength={64} list="around" autocomplete="off" inputMode="numeric" onInput={(e) => setComponent(e.currentTarget.value)} />
            <datalist id="around">
              {around.map((x) => (
                <option key={x.id} value={x.id}>
                  {[x.name, `${Math.round(x.distance_m)} m`, x.address].filter(Boolean).join(' · ')}
                </option>
              ))}
            </datalist>
            {around.length > 0 && <span class="quiet small">{t('cl.around', around.length, within)}</span>}
          </label>
          <div role="status">
            {done !== undefined && (
              <p class="note">
                <Icon name="check" size={16} /> {t('cl.done', done.name || done.id)} <a href={href(['devices', done.id])}>{t('cl.show')}</a>
                <span class="sub">{done.grid ? t('map.grid', done.grid) : t('cl.noGrid')}</span>
              </p>
            )}
          </div>
          <Wrong text={wrong || error} />
          <footer class="buttons">
            <button type="submit" class="primary" disabled={busy}>
              {t('cl.title')}
            </button>
          </footer>
        </div>
      </form>
    </>
  )
}

/** useAround asks for the components around a place, the nearest first. */
function useAround(at: Point | undefined): Nearby[] {
  const ask = at === undefined ? '' : query({ lat: at.lat, lon: at.lon, within, limit: 20 })
  const loaded = useLoad('around ' + ask, async (signal) => (ask === '' ? undefined : get<List<Nearby>>('/components/nearby' + ask, signal)))
  return loaded.data?.items ?? []
}
