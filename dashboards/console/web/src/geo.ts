// Where a phone is.
import { useRef, useState } from 'preact/hooks'
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

/**
 * useWhereAmI asks the phone when it is told to locate, and puts what it says, unless stop was called or it was asked
 * again meanwhile: what a person says of the place is not overwritten by what comes late. looking is the uncertainty
 * in metres of what was put.
 */
export function useWhereAmI(put: (s: Spot) => void) {
  const [looking, setLooking] = useState<'' | 'now' | 'failed' | number>('')
  const asked = useRef(0)
  const locate = () => {
    const n = ++asked.current
    const ifNewest = (f: () => void) => n === asked.current && f()
    setLooking('now')
    whereAmI().then(
      (s) => ifNewest(() => (put(s), setLooking(s.accuracy))),
      () => ifNewest(() => setLooking('failed')),
    )
  }
  const stop = () => {
    asked.current++
    setLooking('')
  }
  return { looking, locate, stop }
}

/** distance between two points, metres. */
export function distance(a: Point, b: Point): number {
  const rad = Math.PI / 180
  const x = Math.sin(((b.lat - a.lat) * rad) / 2)
  const y = Math.sin(((b.lon - a.lon) * rad) / 2)
  return 2 * 6_371_008.8 * Math.asin(Math.sqrt(x * x + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * y * y))
}
