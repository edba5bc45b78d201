// Where a phone is.
import type { Point } from './types'

/** Spot is a position with its uncertainty in metres. */
export interface Spot extends Point {
  accuracy: number
}

/** whereAmI asks the phone; it rejects when the person or the phone won't say. */
export function whereAmI(): Promise<Spot> {
  return new Promise((done, fail) => {
    if (navigator.geolocation === undefined) return fail(new Error('no geolocation'))
    navigator.geolocation.getCurrentPosition(
      (p) => done({ lat: p.coords.latitude, lon: p.coords.longitude, accuracy: Math.round(p.coords.accuracy) }),
      fail,
      { enableHighAccuracy: true, timeout: 20_000, maximumAge: 30_000 },
    )
  })
}

/** distance between two points, metres. */
export function distance(a: Point, b: Point): number {
  const rad = Math.PI / 180
  const x = Math.sin(((b.lat - a.lat) * rad) / 2)
  const y = Math.sin(((b.lon - a.lon) * rad) / 2)
  return 2 * 6_371_008.8 * Math.asin(Math.sqrt(x * x + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * y * y))
}
