// A map to point at a place. The fields for the position beside it do the same
// without it.
import { useEffect, useRef, useState } from 'preact/hooks'
import { enc, get } from './api'
import { distance } from './geo'
import { t } from './i18n'
import { MapView } from './mapview'
import type { MapInfo, Point } from './types'

const shown = ['grids', 'streets', 'buildings']

/** PickMap marks at and calls onPick with the place that was clicked; of is the map of citizens, who may not ask for the staff's. */
export function PickMap({ at, onPick, of }: { at: Point | undefined; onPick: (p: Point) => void; of?: MapInfo }) {
  const box = useRef<HTMLDivElement>(null)
  const view = useRef<MapView | undefined>(undefined)
  const pick = useRef(onPick)
  const own = useRef<Point | undefined>(undefined) // where was clicked last
  pick.current = (p) => {
    own.current = p
    onPick(p)
  }
  const [ready, setReady] = useState(false)
  const [failed, setFailed] = useState(false)
  useEffect(() => {
    const abort = new AbortController()
    void (async () => {
      try {
        const info = of ?? (await get<MapInfo>('/map', abort.signal))
        if (abort.signal.aborted || box.current === null) return
        const look = document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'
        const v = (view.current = new MapView(box.current, info, look, () => {}, t('wk.map'), (p) => pick.current(p)))
        setReady(true)
        for (const name of (info.layers ?? []).filter((l) => shown.includes(l)))
          v.setLayer(name, await get<GeoJSON.FeatureCollection>((of === undefined ? '' : '/public') + '/map/layers/' + enc(name), abort.signal))
      } catch {
        if (!abort.signal.aborted) setFailed(true)
      }
    })()
    return () => {
      abort.abort()
      view.current?.destroy()
      view.current = undefined
    }
  }, [])
  useEffect(() => {
    view.current?.pick(at)
    const clicked = at !== undefined && own.current !== undefined && distance(at, own.current) < 1
    if (at !== undefined && !clicked) view.current?.fly(at)
  }, [ready, at?.lat, at?.lon])
  if (failed) return <p class="quiet">{t('map.failed')}</p>
  return (
    <div class="map pickmap">
      <div class="canvas" ref={box} />
      <p class="over">{t('wk.point')}</p>
    </div>
  )
}
