// The map itself: MapLibre GL over the platform's own GeoJSON. No tiles, no
// glyphs, no sprites are fetched: letters are drawn from the fonts of this
// computer, signs from shapes.ts. This module is loaded when a map is shown.
import { Map as GLMap, setWorkerUrl, type GeoJSONSource, type LayerSpecification, type MapMouseEvent, type StyleSpecification } from 'maplibre-gl'
import workerURL from 'maplibre-gl/dist/maplibre-gl-worker.mjs?url'
import { text } from './i18n'
import { domainShape, severityColor, severityShape } from './shapes'
import type { Alarm, Domain, Light, MapInfo, Point, Severity, Status } from './types'

/** Spot is a device as the map knows it; nobody changes one, a change makes another. */
export interface Spot {
  id: string
  name: string
  model: string
  domain: Domain | undefined
  status: Status
  grid?: string
  at: Point
}

/** CaseDot is an open case as the map shows it. */
export interface CaseDot {
  id: string
  light: Light | undefined
  at: Point
}

/** Picked is what a person clicked on. */
export type Picked =
  | { kind: 'device' | 'case' | 'grid' | 'component'; id: string }
  | { kind: 'feature'; layer: string; properties: Record<string, unknown> }
  | undefined

/** Fonts for labels; the first one that this computer has. */
const fonts = ['Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', 'sans-serif']

const looks = {
  light: {
    ground: '#e9ebed', grid: '#c6ccd2', gridFill: 'rgba(255,255,255,0)', gridText: '#5c6670', building: '#dcdfe3', buildingLine: '#c3c8ce', street: '#ffffff',
    casing: '#cfd4d9', streetText: '#4a545e', pipe: '#8fa3b5', dma: '#93a5b4', halo: '#f2f3f5', ink: '#2b3239', dot: '#ffffff', dotLine: '#5c6670', glyph: '#4a545e', picked: '#2563a8', late: '#b3201d',
  },
  dark: {
    ground: '#1d2125', grid: '#434b53', gridFill: 'rgba(0,0,0,0)', gridText: '#98a3ad', building: '#2a3036', buildingLine: '#384048', street: '#39414a',
    casing: '#2a3036', streetText: '#b3bdc6', pipe: '#5d7386', dma: '#566878', halo: '#16191c', ink: '#dfe4e8', dot: '#2a3036', dotLine: '#a3aeb8', glyph: '#c3ccd4', picked: '#6db1f5', late: '#ff7a70',
  },
}

export type Look = keyof typeof looks

const empty: GeoJSON.FeatureCollection = { type: 'FeatureCollection', features: [] }
const rank: Record<Severity, number> = { critical: 5, major: 4, minor: 3, warning: 2, indeterminate: 1 }

/** which map layers belong to what the legend switches */
const groups: Record<string, string[]> = {
  grids: ['grids-fill', 'grids', 'grids-text'],
  streets: ['streets-casing', 'streets', 'streets-text'],
  buildings: ['buildings', 'buildings-line', 'buildings-text'],
  pipes: ['pipes', 'pipes-text'],
  dmas: ['dmas', 'dmas-text'],
  devices: ['clusters', 'clusters-text', 'devices', 'devices-text'],
  cases: ['cases'],
  components: ['components', 'components-text'],
}

const near = 15 // the zoom from which components are shown

/** MapView draws into el until destroy. */
export class MapView {
  private readonly map: GLMap
  private ready = false
  private readonly waiting: (() => void)[] = []
  private look: Look
  private readonly hidden = new Set<string>()
  private readonly layers = new Map<string, GeoJSON.FeatureCollection>()
  private spots = new Map<string, Spot>()
  private worst = new Map<string, Alarm>() // the gravest of each device that has one
  private readonly calm = new Map<string, Spot>() // those in the source of devices
  private loud: unknown[] = [] // those in the source of alarms: spot, alarm, spot, alarm …
  private near = () => {} // asks for what is shown near only
  private cases: CaseDot[] = []
  private picked = ''

  constructor(
    el: HTMLElement,
    private readonly info: MapInfo,
    look: Look,
    onPick: (p: Picked) => void,
    label: string,
    onPoint?: (p: Point) => void, // instead of onPick: where was clicked
  ) {
    setWorkerUrl(new URL(workerURL, location.href).href)
    this.look = look
    this.map = new GLMap({
      container: el,
      style: this.style(),
      bounds: info.bounds,
      fitBoundsOptions: { padding: room(el) },
      maxBounds: around(info.bounds),
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      localIdeographFontFamily: fonts.map((f) => (f.includes(' ') ? `'${f}'` : f)).join(', '),
      fadeDuration: 300, // how often labels are placed anew while the map moves
      locale: { 'Map.Title': label },
    })
    this.map.touchZoomRotate.disableRotation()
    this.map.keyboard.disableRotation()
    this.map.on('style.load', () => {
      this.signs()
      this.ready = true
      for (const f of this.waiting.splice(0)) f()
      this.fill()
    })
    // For whoever waits until everything is drawn.
    this.map.on('idle', () => (el.dataset.state = 'idle'))
    this.map.on('dataloading', () => (el.dataset.state = 'busy'))
    if (onPoint !== undefined) {
      this.map.on('click', (e) => onPoint({ lat: e.lngLat.lat, lon: e.lngLat.lng }))
      this.map.getCanvas().style.cursor = 'crosshair'
      return
    }
    this.map.on('click', (e) => void this.click(e, onPick))
    this.map.on('mousemove', (e) => {
      if (this.map.isMoving()) return
      const hit = this.hit(e)
      this.map.getCanvas().style.cursor = hit === undefined || hit.layer.id === 'grids-fill' ? '' : 'pointer'
    })
  }

  destroy() {
    this.map.remove()
  }

  private when(f: () => void) {
    if (this.ready) f()
    else this.waiting.push(f)
  }

  /** setLook changes light and dark. */
  setLook(look: Look) {
    if (look === this.look) return
    this.look = look
    this.restyle()
  }

  /** restyle draws everything again, as when the language changed. */
  restyle() {
    this.ready = false
    this.map.setStyle(this.style(), { diff: false })
  }

  /** setLayer gives the shapes of a layer. */
  setLayer(name: string, data: GeoJSON.FeatureCollection) {
    this.layers.set(name, data)
    this.when(() => this.source(name, labelled(data)))
  }

  /** setDevices gives the devices and the gravest alarm of each that has one; only what is another than before is drawn. */
  setDevices(spots: Map<string, Spot>, worst: Map<string, Alarm>) {
    this.spots = spots
    this.worst = worst
    this.when(() => this.fillDevices())
  }

  setCases(cases: CaseDot[]) {
    this.cases = cases
    this.when(() => this.source('cases', caseFeatures(cases)))
  }

  /** show puts a group of layers on the map or takes it off. */
  show(group: string, on: boolean) {
    if (on) this.hidden.delete(group)
    else this.hidden.add(group)
    this.when(() => {
      for (const id of groups[group] ?? []) this.map.setLayoutProperty(id, 'visibility', on ? 'visible' : 'none')
      // While they were off, nobody asked for the components of where the map has moved to.
      if (on && group === 'components') this.near()
    })
  }

  /** pick marks one place; undefined marks none. */
  pick(at: Point | undefined, grid = '') {
    this.picked = grid
    this.when(() => {
      this.source('picked', points(at === undefined ? [] : [{ at, properties: {} }]))
      this.map.setFilter('grids-picked', ['==', ['get', 'code'], grid])
    })
  }

  /** fly moves to a place. */
  fly(at: Point, zoom = 16) {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches
    this.map.flyTo({ center: [at.lon, at.lat], zoom: Math.max(this.map.getZoom(), zoom), duration: still ? 0 : 700 })
  }

  fit() {
    this.map.fitBounds(this.info.bounds, { padding: room(this.map.getContainer()) })
  }

  zoom(by: number) {
    this.map.easeTo({ zoom: this.map.getZoom() + by, duration: 200 })
  }

  resize() {
    this.map.resize()
  }

  /** whenNear calls f with the box that is shown, west to north, as often as the map has come to rest near enough to show components. */
  whenNear(f: (box: [number, number, number, number]) => void) {
    const tell = (this.near = () => {
      const b = this.map.getBounds()
      if (this.map.getZoom() >= near && !this.hidden.has('components')) f([b.getWest(), b.getSouth(), b.getEast(), b.getNorth()])
    })
    this.map.on('moveend', tell)
    this.when(tell)
  }

  private source(name: string, data: GeoJSON.FeatureCollection) {
    ;(this.map.getSource(name) as GeoJSONSource | undefined)?.setData(data)
  }

  private fill() {
    for (const [name, data] of this.layers) this.source(name, labelled(data))
    this.calm.clear() // a new style begins with empty sources
    this.loud = []
    this.fillDevices()
    this.source('cases', caseFeatures(this.cases))
    for (const g of this.hidden) this.show(g, false)
    this.map.setFilter('grids-picked', ['==', ['get', 'code'], this.picked])
  }

  // Devices with an alarm never vanish into a cluster: they have a source of their own.
  private fillDevices() {
    const add: GeoJSON.Feature[] = []
    const remove: string[] = []
    const loud: GeoJSON.Feature[] = []
    const shown: unknown[] = []
    for (const s of this.spots.values()) {
      const alarm = this.worst.get(s.id)
      if (alarm !== undefined) {
        shown.push(s, alarm)
        loud.push(deviceFeature(s, alarm))
      } else if (this.calm.get(s.id) !== s) {
        this.calm.set(s.id, s)
        add.push(deviceFeature(s))
      }
    }
    for (const id of this.calm.keys()) {
      if (this.spots.has(id) && !this.worst.has(id)) continue
      this.calm.delete(id)
      remove.push(id)
    }
    const source = this.map.getSource<GeoJSONSource>('devices')
    if (add.length === this.calm.size) source?.setData({ type: 'FeatureCollection', features: add })
    else if (add.length + remove.length > 0) void source?.updateData({ add, remove })
    if (shown.length === this.loud.length && shown.every((x, i) => x === this.loud[i])) return
    this.loud = shown
    this.source('alarms', { type: 'FeatureCollection', features: loud })
  }

  private hit(e: MapMouseEvent) {
    const box: [[number, number], [number, number]] = [
      [e.point.x - 5, e.point.y - 5],
      [e.point.x + 5, e.point.y + 5],
    ]
    const top = ['alarms-sign', 'alarms', 'cases', 'devices', 'clusters'].filter((id) => this.map.getLayer(id))
    const middle = ['components'].filter((id) => this.map.getLayer(id))
    const lines = ['pipes', 'streets', 'buildings'].filter((id) => this.map.getLayer(id))
    return (
      this.map.queryRenderedFeatures(box, { layers: top })[0] ??
      this.map.queryRenderedFeatures(box, { layers: middle })[0] ??
      this.map.queryRenderedFeatures(box, { layers: lines })[0] ??
      (this.map.getLayer('grids-fill') ? this.map.queryRenderedFeatures(e.point, { layers: ['grids-fill'] })[0] : undefined)
    )
  }

  private async click(e: MapMouseEvent, onPick: (p: Picked) => void) {
    if (!this.ready) return
    const f = this.hit(e)
    if (f === undefined) return onPick(undefined)
    const p = f.properties
    if (f.layer.id === 'clusters') {
      const zoom = await (this.map.getSource('devices') as GeoJSONSource).getClusterExpansionZoom(p['cluster_id'] as number)
      this.map.easeTo({ center: (f.geometry as GeoJSON.Point).coordinates as [number, number], zoom: zoom + 0.3 })
      return
    }
    if (f.source === 'devices' || f.source === 'alarms') return onPick({ kind: 'device', id: String(p['id']) })
    if (f.source === 'cases') return onPick({ kind: 'case', id: String(p['id']) })
    if (f.source === 'grids') return onPick({ kind: 'grid', id: String(p['code']) })
    if (f.source === 'components') return onPick({ kind: 'component', id: String(p['id']) })
    onPick({ kind: 'feature', layer: f.source, properties: p })
  }

  private style(): StyleSpecification {
    const c = looks[this.look]
    const label = (size: number, color = c.ink) => ({
      layout: { 'text-field': ['get', 'label'] as unknown as string, 'text-size': size, 'text-font': [fonts[0]!] },
      paint: { 'text-color': color, 'text-halo-color': c.halo, 'text-halo-width': 1.4 },
    })
    const source = () => ({ type: 'geojson' as const, data: empty })
    const layers: LayerSpecification[] = [
      { id: 'ground', type: 'background', paint: { 'background-color': c.ground } },
      { id: 'grids-fill', type: 'fill', source: 'grids', paint: { 'fill-color': c.gridFill } },
      { id: 'buildings', type: 'fill', source: 'buildings', minzoom: 12, paint: { 'fill-color': c.building } },
      { id: 'buildings-line', type: 'line', source: 'buildings', minzoom: 14, paint: { 'line-color': c.buildingLine } },
      {
        id: 'streets-casing', type: 'line', source: 'streets', layout: { 'line-cap': 'round', 'line-join': 'round' },
        paint: { 'line-color': c.casing, 'line-width': ['interpolate', ['exponential', 1.5], ['zoom'], 11, 1.5, 14, 5, 18, 24] },
      },
      {
        id: 'streets', type: 'line', source: 'streets', layout: { 'line-cap': 'round', 'line-join': 'round' },
        paint: { 'line-color': c.street, 'line-width': ['interpolate', ['exponential', 1.5], ['zoom'], 11, 0.8, 14, 3.5, 18, 21] },
      },
      { id: 'grids', type: 'line', source: 'grids', paint: { 'line-color': c.grid, 'line-width': ['interpolate', ['linear'], ['zoom'], 11, 0.4, 16, 1.2] } },
      { id: 'dmas', type: 'line', source: 'dmas', paint: { 'line-color': c.dma, 'line-width': 2, 'line-dasharray': [6, 3] } },
      { id: 'pipes', type: 'line', source: 'pipes', layout: { 'line-cap': 'round' }, paint: { 'line-color': c.pipe, 'line-width': ['interpolate', ['linear'], ['zoom'], 11, 1, 17, 4] } },
      { id: 'grids-picked', type: 'line', source: 'grids', filter: ['==', ['get', 'code'], ''], paint: { 'line-color': c.picked, 'line-width': 3 } },
      { id: 'buildings-text', type: 'symbol', source: 'buildings', minzoom: 15.2, ...label(11, c.gridText) },
      { id: 'grids-text', type: 'symbol', source: 'grids', minzoom: 15.6, ...label(11, c.gridText) },
      { id: 'dmas-text', type: 'symbol', source: 'dmas', minzoom: 11.5, ...label(12, c.gridText) },
      { id: 'pipes-text', type: 'symbol', source: 'pipes', minzoom: 15.5, ...along(label(11, c.gridText)) },
      { id: 'streets-text', type: 'symbol', source: 'streets', minzoom: 12.5, ...along(label(13, c.streetText)) },
      {
        id: 'components', type: 'symbol', source: 'components', minzoom: near,
        layout: { 'icon-image': ['match', ['get', 'state'], ['damaged', 'lost'], 'component-bad', 'component'], 'icon-allow-overlap': true },
      },
      {
        id: 'components-text', type: 'symbol', source: 'components', minzoom: 17.5,
        layout: { ...label(10).layout, 'text-offset': [0, 0.9], 'text-anchor': 'top', 'text-optional': true },
        paint: label(10, c.gridText).paint,
      },
      {
        id: 'clusters', type: 'circle', source: 'devices', filter: ['has', 'point_count'],
        paint: {
          'circle-color': c.dot, 'circle-stroke-color': c.dotLine, 'circle-stroke-width': 1.5,
          'circle-radius': ['interpolate', ['linear'], ['sqrt', ['get', 'point_count']], 1, 10, 10, 18, 100, 30],
        },
      },
      {
        id: 'clusters-text', type: 'symbol', source: 'devices', filter: ['has', 'point_count'],
        layout: { 'text-field': ['get', 'point_count_abbreviated'], 'text-size': 12, 'text-font': [fonts[0]!], 'text-allow-overlap': true },
        paint: { 'text-color': c.ink },
      },
      {
        id: 'devices', type: 'symbol', source: 'devices', filter: ['!', ['has', 'point_count']],
        layout: { 'icon-image': ['get', 'sign'], 'icon-allow-overlap': true, 'icon-size': ['interpolate', ['linear'], ['zoom'], 12, 0.7, 16, 1] },
      },
      {
        id: 'devices-text', type: 'symbol', source: 'devices', minzoom: 16.5, filter: ['!', ['has', 'point_count']],
        layout: { ...label(11).layout, 'text-offset': [0, 1.2], 'text-anchor': 'top', 'text-optional': true },
        paint: label(11).paint,
      },
      {
        id: 'picked', type: 'circle', source: 'picked',
        paint: { 'circle-radius': 17, 'circle-color': 'rgba(0,0,0,0)', 'circle-stroke-color': c.picked, 'circle-stroke-width': 3 },
      },
      { id: 'alarms', type: 'symbol', source: 'alarms', layout: { 'icon-image': ['get', 'sign'], 'icon-allow-overlap': true } },
      { id: 'cases', type: 'symbol', source: 'cases', layout: { 'icon-image': ['get', 'sign'], 'icon-allow-overlap': true, 'icon-offset': [18, 6] } },
      {
        id: 'alarms-sign', type: 'symbol', source: 'alarms',
        layout: {
          ...label(12).layout,
          'icon-image': ['get', 'alarm'], 'icon-allow-overlap': true, 'icon-offset': [0, -19], 'symbol-sort-key': ['get', 'rank'],
          'text-field': ['step', ['zoom'], '', 14.5, ['get', 'title']], 'text-anchor': 'bottom', 'text-offset': [0, -2.4], 'text-optional': true, 'text-max-width': 14,
        },
        paint: label(12).paint,
      },
    ]
    return {
      version: 8,
      sources: {
        grids: source(), streets: source(), buildings: source(), pipes: source(), dmas: source(),
        devices: { type: 'geojson', data: empty, promoteId: 'id', cluster: true, clusterRadius: 36, clusterMaxZoom: 17 },
        components: source(), alarms: source(), cases: source(), picked: source(),
      },
      layers,
    }
  }

  private signs() {
    const c = looks[this.look]
    for (const domain of [...(Object.keys(domainShape) as Domain[]), 'other'] as const) {
      for (const status of ['online', 'silent', 'never'] as const) {
        this.add(`dev-${domain}-${status}`, 24, (g) => {
          g.beginPath()
          g.arc(12, 12, 10, 0, 7)
          g.fillStyle = c.dot
          g.fill()
          g.lineWidth = 1.6
          g.strokeStyle = c.dotLine
          if (status !== 'online') g.setLineDash(status === 'silent' ? [4, 2.5] : [1.5, 2.5])
          g.stroke()
          g.setLineDash([])
          if (domain !== 'other') {
            g.save()
            g.translate(5.4, 5.4)
            g.scale(0.66, 0.66)
            g.fillStyle = c.glyph
            g.globalAlpha = status === 'online' ? 1 : 0.5
            g.fill(new Path2D(domainShape[domain]), 'evenodd')
            g.restore()
          }
          if (status === 'silent') {
            g.beginPath()
            g.moveTo(4.5, 19.5)
            g.lineTo(19.5, 4.5)
            g.lineWidth = 2
            g.stroke()
          }
        })
      }
    }
    for (const s of Object.keys(severityShape) as Severity[]) {
      this.add('sev-' + s, 24, (g) => {
        g.translate(2, 2)
        const p = new Path2D(severityShape[s].path)
        g.lineJoin = 'round'
        g.lineWidth = 3.5
        g.strokeStyle = c.halo
        g.stroke(p)
        g.fillStyle = severityColor[s].fill
        g.fill(p)
        g.fillStyle = severityColor[s].ink
        g.font = 'bold 12px sans-serif'
        g.textAlign = 'center'
        g.fillText(severityShape[s].number, 10, 14.2 + severityShape[s].dy)
      })
    }
    for (const bad of [false, true]) {
      this.add(bad ? 'component-bad' : 'component', 14, (g) => {
        g.beginPath()
        g.rect(3, 3, 8, 8)
        g.fillStyle = c.dot
        g.fill()
        g.lineWidth = bad ? 2 : 1.4
        g.strokeStyle = bad ? c.late : c.dotLine
        if (bad) {
          g.moveTo(3, 3)
          g.lineTo(11, 11)
          g.moveTo(11, 3)
          g.lineTo(3, 11)
        }
        g.stroke()
      })
    }
    for (const late of [false, true]) {
      this.add(late ? 'case-late' : 'case', 24, (g) => {
        g.translate(2, 2)
        g.beginPath()
        g.rect(3, 2.5, 14, 16)
        g.fillStyle = c.dot
        g.fill()
        g.lineWidth = 1.8
        g.strokeStyle = late ? c.late : c.dotLine
        g.stroke()
        g.beginPath()
        if (late) {
          g.lineWidth = 2.6
          g.moveTo(10, 5.5)
          g.lineTo(10, 12)
          g.moveTo(10, 14.2)
          g.lineTo(10, 16)
        } else {
          g.moveTo(6, 7)
          g.lineTo(14, 7)
          g.moveTo(6, 10.5)
          g.lineTo(14, 10.5)
          g.moveTo(6, 14)
          g.lineTo(11, 14)
        }
        g.stroke()
      })
    }
  }

  private add(id: string, size: number, draw: (g: CanvasRenderingContext2D) => void) {
    const canvas = document.createElement('canvas')
    const ratio = 2
    canvas.width = canvas.height = size * ratio
    const g = canvas.getContext('2d')!
    g.scale(ratio, ratio)
    draw(g)
    if (this.map.hasImage(id)) this.map.removeImage(id)
    this.map.addImage(id, g.getImageData(0, 0, canvas.width, canvas.height), { pixelRatio: ratio })
  }
}

function along<T extends { layout: object }>(x: T) {
  return { ...x, layout: { ...x.layout, 'symbol-placement': 'line' as const, 'symbol-spacing': 320, 'text-max-angle': 30 } }
}

// room is what the open legend and the buttons need at the edges of a wide map.
function room(el: HTMLElement) {
  const legend = el.parentElement?.querySelector<HTMLElement>('.legend.open')?.offsetWidth ?? 0
  return el.clientWidth > 700 ? { left: legend + 20, right: 64, top: 20, bottom: 20 } : 12
}

function around(b: [[number, number], [number, number]]): [[number, number], [number, number]] {
  const w = (b[1][0] - b[0][0]) * 1.5
  const h = (b[1][1] - b[0][1]) * 1.5
  return [
    [b[0][0] - w, b[0][1] - h],
    [b[1][0] + w, b[1][1] + h],
  ]
}

function points(xs: { at: Point; properties: Record<string, unknown> }[]): GeoJSON.FeatureCollection {
  return {
    type: 'FeatureCollection',
    features: xs.map(({ at, properties }) => ({ type: 'Feature', geometry: { type: 'Point', coordinates: [at.lon, at.lat] }, properties })),
  }
}

const deviceFeature = (s: Spot, alarm?: Alarm): GeoJSON.Feature => ({
  type: 'Feature',
  geometry: { type: 'Point', coordinates: [s.at.lon, s.at.lat] },
  properties: {
    id: s.id,
    label: s.name || s.id,
    sign: `dev-${s.domain ?? 'other'}-${s.status}`,
    ...(alarm && { alarm: 'sev-' + alarm.severity, rank: rank[alarm.severity], title: text(alarm.title, alarm.rule) }),
  },
})

const caseFeatures = (cs: CaseDot[]) => points(cs.map((c) => ({ at: c.at, properties: { id: c.id, sign: c.light === 'red' ? 'case-late' : 'case' } })))

// labelled gives every feature its name in the language in use; unit grids
// the end of their code, which is what their people call them by.
function labelled(data: GeoJSON.FeatureCollection): GeoJSON.FeatureCollection {
  return {
    ...data,
    features: data.features.map((f) => {
      const p = f.properties ?? {}
      const name = text({ zh: p['name_zh'] ?? '', en: p['name_en'] ?? '' }) || text(p['name'])
      const code = String(p['code'] ?? '')
      return { ...f, properties: { ...p, label: p['kind'] === 'grid' ? code.slice(-6) : name } }
    }),
  }
}
