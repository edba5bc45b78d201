// The signs of the console, as paths in a box of 20 by 20: the same in lists
// (SVG) and on the map (canvas). Every severity has its own shape and number,
// so that it can be told without its colour.
import type { Domain, Severity } from './types'

export const severityShape: Record<Severity, { path: string; number: string; dy: number }> = {
  critical: { path: 'M6.3 1h7.4L19 6.3v7.4L13.7 19H6.3L1 13.7V6.3z', number: '1', dy: 0 },
  major: { path: 'M10 1.2 19.3 18H.7z', number: '2', dy: 2.2 },
  minor: { path: 'M10 18.8.7 2h18.6z', number: '3', dy: -2.2 },
  warning: { path: 'M2.5 2.5h15v15h-15z', number: '4', dy: 0 },
  indeterminate: { path: 'M10 1.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z', number: '5', dy: 0 },
}

/** severityColor is what fills the shape: the same in light and dark, all against the number written on it. */
export const severityColor: Record<Severity, { fill: string; ink: string }> = {
  critical: { fill: '#c8201f', ink: '#ffffff' },
  major: { fill: '#f08a24', ink: '#1c1c1c' },
  minor: { fill: '#f2cf3b', ink: '#1c1c1c' },
  warning: { fill: '#8a5fc0', ink: '#ffffff' },
  indeterminate: { fill: '#6b7c8c', ink: '#ffffff' },
}

/** domainShape is what kind of device it is. */
export const domainShape: Record<Domain, string> = {
  parking: 'M6 3h5.2a4.3 4.3 0 0 1 0 8.6H8.6V17H6zm2.6 2.4v3.8h2.4a1.9 1.9 0 0 0 0-3.8z',
  fire: 'M10.5 2c.4 3-3.9 4.7-4.9 8.6C4.7 14.3 7 18 10.2 18c3.1 0 5.4-2.6 5.1-5.9-.2-2.1-1.4-3.3-2.1-4.9-.7 1-1 1.9-1.1 2.9C11.3 8 11.6 4.6 10.5 2z',
  pipe: 'M10 2c2.6 3.7 5.2 6.6 5.2 10A5.1 5.1 0 0 1 10 17.5 5.1 5.1 0 0 1 4.8 12C4.8 8.6 7.4 5.7 10 2z',
  building: 'M4 18V4.5L10 2l6 2.5V18h-4.3v-3.5H8.3V18zM6.5 6.5v2h2v-2zm5 0v2h2v-2zm-5 4v2h2v-2zm5 0v2h2v-2z',
}

/** sign is every other icon, drawn as lines. */
export const sign = {
  map: 'M2.5 5 7.5 3l5 2 5-2v12l-5 2-5-2-5 2zM7.5 3v12M12.5 5v12',
  alarm: 'M10 2.5a5 5 0 0 0-5 5c0 5-2 6.5-2 6.5h14s-2-1.5-2-6.5a5 5 0 0 0-5-5zM8.3 17a2 2 0 0 0 3.4 0',
  case: 'M4 3.5h12v14H4zM7.5 2h5v3h-5zM7 9h6M7 12.5h4',
  component: 'M5 5h10v10H5z',
  device: 'M10 11.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM6.5 13.5a5 5 0 0 1 0-7M13.5 6.5a5 5 0 0 1 0 7M4 16a8.5 8.5 0 0 1 0-12M16 4a8.5 8.5 0 0 1 0 12',
  rule: 'M3 5h8M15 5h2M3 10h2M9 10h8M3 15h6M13 15h4M13 3.2v3.6M7 8.2v3.6M11 13.2v3.6',
  gear: 'M10 12.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6zM10 2v2.2M10 15.8V18M2 10h2.2M15.8 10H18M4.3 4.3l1.6 1.6M14.1 14.1l1.6 1.6M15.7 4.3l-1.6 1.6M5.9 14.1l-1.6 1.6',
  close: 'M5 5l10 10M15 5 5 15',
  back: 'M12.5 4 6.5 10l6 6',
  check: 'M4 10.5 8.2 15 16 5.5',
  clock: 'M10 2.5a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15zM10 6v4.3l2.8 1.7',
  warn: 'M10 3 18 17H2zM10 8v4.5M10 14.3v.7',
  silent: 'M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM5.4 14.6l9.2-9.2',
  never: 'M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM10 13.5v.5M8 8.2a2 2 0 1 1 2.8 2c-.6.3-.8.7-.8 1.4',
  plus: 'M10 4v12M4 10h12',
  minus: 'M4 10h12',
  fit: 'M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4',
  copy: 'M7 7h10v10H7zM13 7V3H3v10h4',
  pin: 'M10 18s6-5.5 6-10a6 6 0 1 0-12 0c0 4.5 6 10 6 10zM10 10a2 2 0 1 0 0-4 2 2 0 0 0 0 4z',
  lost: 'M3 8a11 11 0 0 1 14 0M6 11.5a6.5 6.5 0 0 1 8 0M10 15.5h.01M3 3l14 14',
  pause: 'M7 4v12M13 4v12',
  search: 'M8.5 14a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM12.5 12.5 17 17',
  camera: 'M3 6h3l1.5-2.5h5L14 6h3v10.5H3zM10 14a3 3 0 1 0 0-6 3 3 0 0 0 0 6z',
  inbox: 'M3 11.5 5.5 4h9l2.5 7.5V17H3zM3 11.5h4l1.2 2h3.6l1.2-2h4',
  send: 'M3 10 17 3.5 12.5 17 9.5 11.5zM9.5 11.5 17 3.5',
  tool: 'M12 3.5a4.5 4.5 0 0 0-4.3 6L3 14.3 5.7 17l4.8-4.7a4.5 4.5 0 0 0 6-5.8L14 9l-3-.5L10.5 6z',
  walk: 'M10.5 4.2a1.2 1.2 0 1 0 0-2.4 1.2 1.2 0 0 0 0 2.4zM7 10.5l1.5-4.5 3 .5 1.5 3 2.5.8M9 11l-1 7M9 11l3 2.5.5 4.5',
  eye: 'M2 10s3-5.5 8-5.5 8 5.5 8 5.5-3 5.5-8 5.5S2 10 2 10zM10 12.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z',
  download: 'M10 3v9.5M6 9l4 4 4-4M3.5 16.5h13',
  people: 'M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2 17c.3-3 2.5-4.8 5.5-4.8S12.700 14 13 17M13 4a3 3 0 0 1 0 5.5M15 12.700c1.700.8 2.8 2.300 3 4.300',
  log: 'M4.5 3h8l3 3v11h-11zM7.5 9h5M7.5 12h5',
  chart: 'M3 17h14M5 17V11M9 17V5M13 17V8.5M16 17v-4',
  sound: 'M3 8v4h3l4 3.5v-11L6 8zM13 7a4.2 4.2 0 0 1 0 6M15.2 4.8a7.300 7.300 0 0 1 0 10.4',
  legend: 'M4 5.5h.01M4 10h.01M4 14.5h.01M8 5.5h9M8 10h9M8 14.5h9',
} as const

export type Sign = keyof typeof sign
