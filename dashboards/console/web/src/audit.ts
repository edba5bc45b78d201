// What an entry of the audit changed. Pure functions over what GET /audit
// returns.

/** Change is a field of what was changed, before and after; undefined where there was none. */
export interface Change {
  field: string
  before: string | undefined
  after: string | undefined
}

/** changes returns the fields in which before and after differ, nested ones as "location.lat". */
export function changes(before: unknown, after: unknown): Change[] {
  const x = flat(before)
  const y = flat(after)
  return [...new Set([...x.keys(), ...y.keys()])]
    .filter((k) => x.get(k) !== y.get(k))
    .map((field) => ({ field, before: x.get(field), after: y.get(field) }))
}

function flat(v: unknown, at = '', into = new Map<string, string>()): Map<string, string> {
  if (v === undefined || v === null) return into
  if (typeof v === 'object' && !Array.isArray(v)) {
    for (const [k, x] of Object.entries(v)) flat(x, at === '' ? k : `${at}.${k}`, into)
    return into
  }
  return into.set(at, typeof v === 'string' ? v : JSON.stringify(v))
}

/** outcome says how a call ended, by its HTTP status; 0 is one that was never finished. */
export const outcome = (status: number): 'done' | 'denied' | 'refused' | 'failed' | 'unknown' =>
  status === 0 ? 'unknown' : status < 400 ? 'done' : status === 401 || status === 403 ? 'denied' : status < 500 ? 'refused' : 'failed'
