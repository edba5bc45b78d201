// Where a citizen says it is, and in which coordinates: the phone's own position
// and our map are WGS 84, what a map app of a phone hands over is GCJ-02.
import type { Point } from '../types'

export interface Place extends Point {
  from: 'phone' | 'map' | 'link'
  accuracy?: number // of the phone, metres
  crs: string
}

/** linked reads a position from the address, as an app opens the page with: ?lat=…&lon=…&crs=GCJ-02. */
export function linked(search: string): Place | undefined {
  const q = new URLSearchParams(search)
  const [lat, lon] = [q.get('lat'), q.get('lon')]
  if (!lat || !lon) return undefined
  const p = { lat: Number(lat), lon: Number(lon) }
  if (!(Math.abs(p.lat) <= 90 && Math.abs(p.lon) <= 180)) return undefined
  return { ...p, from: 'link', crs: q.get('crs') || 'WGS84' }
}
