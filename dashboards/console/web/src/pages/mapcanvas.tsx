// The map on its page: what it shows, its buttons and its legend.
import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, enc, get, query } from '../api'
import { back, redraw, useRedraw } from '../app'
import { lang, t, type Key } from '../i18n'
import { Failed, Icon, lightOf, Loading, SeverityMark, StatusMark } from '../ui'
import { severities, type Alarm, type Case, type MapInfo, type Point, type Severity } from '../types'
import type { MapView, Picked, Spot } from '../mapview'

/** Spots are the devices that have a place. Who changes one wraps them anew. */
export interface Spots {
  all: Map<string, Spot>
}

interface CanvasProps {
  search: string
  devices: Spots | undefined
  alarms: Alarm[]
  cases: Case[]
  picked: Point | undefined
  grid: string
  onPick: (p: Picked) => void
}

const switches = ['grids', 'streets', 'buildings', 'pipes', 'dmas', 'components', 'devices', 'cases'] as const

/** Canvas is the map with its buttons and legend. */
export function Canvas(p: CanvasProps) {
  useRedraw(redraw)
  const box = useRef<HTMLDivElement>(null)
  const view = useRef<MapView | undefined>(undefined)
  const [ready, setReady] = useState(false)
  const [problem, setProblem] = useState('')
  const [tries, setTries] = useState(0)
  const [legend, setLegend] = useState(() => matchMedia('(min-width: 1400px)').matches)
  const [off, setOff] = useState<ReadonlySet<string>>(new Set(['dmas']))
  const [layers, setLayers] = useState<string[]>([])
  const pick = useRef(p.onPick)
  pick.current = p.onPick
  const theme = document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'

  useEffect(() => {
    const abort = new AbortController()
    void (async () => {
      try {
        const info = await get<MapInfo>('/map', abort.signal)
        const names = (info.layers ?? []).filter((l) => (switches as readonly string[]).includes(l))
        // The layers need not wait for the code that draws them, nor numbers and lists for the map, which takes longer.
        const all = names.map((name) => get<GeoJSON.FeatureCollection>('/map/layers/' + enc(name), abort.signal))
        for (const l of all) l.catch(() => {}) // awaited below
        await new Promise<void>((painted) => requestAnimationFrame(() => setTimeout(painted)))
        const { MapView } = await import('../mapview')
        if (abort.signal.aborted || box.current === null) return
        if (!hasGL()) return setProblem('map.nogl')
        const v = new MapView(box.current, info, theme, (x) => pick.current(x), t('map.canvas'))
        view.current = v
        for (const s of off) v.show(s, false)
        setReady(true)
        setLayers(names)
        await Promise.all(
          all.map(async (layer, i) => {
            const data = await layer
            if (!abort.signal.aborted) v.setLayer(names[i]!, data)
          }),
        )
      } catch (e) {
        if (abort.signal.aborted) return
        if (!(e instanceof ApiError)) console.error(e)
        setProblem('map.failed')
      }
    })()
    return () => {
      abort.abort()
      view.current?.destroy()
      view.current = undefined
    }
  }, [tries])
  const again = () => {
    setProblem('')
    setReady(false)
    setTries((n) => n + 1)
  }
  // Once the connection is back, what failed is tried again.
  useEffect(() => (problem === 'map.failed' ? back.on(again) : undefined), [problem])

  useEffect(() => view.current?.setLook(theme), [theme, ready])
  const spoken = lang()
  const first = useRef(true)
  useEffect(() => {
    if (!first.current) view.current?.restyle()
    if (ready) first.current = false
  }, [spoken, ready])

  useEffect(() => {
    if (!ready || p.devices === undefined) return
    view.current?.setDevices(p.devices.all, worstOf(p.alarms))
  }, [ready, p.devices, p.alarms])
  useEffect(() => {
    if (ready) view.current?.setCases(p.cases.flatMap((c) => (c.location === undefined ? [] : [{ id: c.id, light: lightOf(c), at: c.location }])))
  }, [ready, p.cases])

  useEffect(() => {
    if (!ready) return
    let abort = new AbortController()
    view.current?.whenNear(([west, south, east, north]) => {
      abort.abort()
      abort = new AbortController()
      get<GeoJSON.FeatureCollection>('/components/map' + query({ west, south, east, north }), abort.signal).then(
        (data) => view.current?.setLayer('components', data),
        () => {}, // the next move asks again
      )
    })
    return () => abort.abort()
  }, [ready])

  const at = p.picked
  useEffect(() => view.current?.pick(at, p.grid), [ready, at?.lat, at?.lon, p.grid])
  const to = new URLSearchParams(p.search).get('at') ?? ''
  useEffect(() => {
    const [lon, lat] = to.split(',').map(Number)
    if (ready && to !== '' && Number.isFinite(lon) && Number.isFinite(lat)) view.current?.fly({ lat: lat!, lon: lon! })
  }, [ready, to])

  if (problem === 'map.failed')
    return (
      <div class="map">
        <Failed error={t('map.failed')} again={again} />
      </div>
    )
  if (problem !== '') return <p class="map empty">{t(problem as Key)}</p>
  return (
    <div class="map">
      <div class="canvas" ref={box} />
      {!ready && <Loading />}
      <div class="mapbuttons">
        <button type="button" onClick={() => view.current?.zoom(1)} aria-label={t('map.zoomin')} title={t('map.zoomin')}>
          <Icon name="plus" />
        </button>
        <button type="button" onClick={() => view.current?.zoom(-1)} aria-label={t('map.zoomout')} title={t('map.zoomout')}>
          <Icon name="minus" />
        </button>
        <button type="button" onClick={() => view.current?.fit()} aria-label={t('map.fit')} title={t('map.fit')}>
          <Icon name="fit" />
        </button>
      </div>
      <div class={'legend' + (legend ? ' open' : '')}>
        <button type="button" aria-expanded={legend} onClick={() => setLegend(!legend)}>
          <Icon name="legend" size={16} /> {t('map.legend')}
        </button>
        {legend && (
          <>
            <fieldset>
              <legend class="hidden">{t('map.layers')}</legend>
              {switches
                .filter((s) => s === 'components' || s === 'devices' || s === 'cases' || layers.includes(s))
                .map((s) => (
                  <label class="check" key={s}>
                    <input
                      type="checkbox"
                      checked={!off.has(s)}
                      onChange={(e) => {
                        const next = new Set(off)
                        if (e.currentTarget.checked) next.delete(s)
                        else next.add(s)
                        setOff(next)
                        view.current?.show(s, e.currentTarget.checked)
                      }}
                    />
                    {t(`map.${s}`)}
                  </label>
                ))}
            </fieldset>
            <ul class="bare">
              {severities.slice(0, 4).map((s: Severity) => (
                <li key={s}>
                  <SeverityMark of={s} />
                </li>
              ))}
              {(['online', 'silent', 'never'] as const).map((s) => (
                <li key={s}>
                  <StatusMark of={s} />
                </li>
              ))}
              <li>
                <span class="mark">
                  <Icon name="case" size={16} /> {t('map.caseSign')}
                </span>
              </li>
              <li>
                <span class="mark">
                  <Icon name="component" size={16} /> {t('map.componentSign')}
                </span>
              </li>
              <li>
                <span class="mark">
                  <span class="ring" aria-hidden="true">
                    12
                  </span>{' '}
                  {t('map.cluster')}
                </span>
              </li>
            </ul>
          </>
        )}
      </div>
    </div>
  )
}

function hasGL(): boolean {
  try {
    return document.createElement('canvas').getContext('webgl2') !== null
  } catch {
    return false
  }
}

/** worstOf returns the gravest alarm of each device that has one; alarms has the gravest first. */
function worstOf(alarms: Alarm[]): Map<string, Alarm> {
  const worst = new Map<string, Alarm>()
  for (const a of [...alarms].reverse()) for (const id of [a.device, ...(a.members ?? [])]) worst.set(id, a)
  return worst
}
