// The reports that this phone made, so that their numbers and codes need not be
// written down.
import { remember, remembered } from '../remember'

export interface Kept {
  number: string
  secret: string
}

const key = 'reports'
const most = 50

/** kept returns them, the newest first; none when the browser keeps nothing. */
export const kept = (): Kept[] => read(remembered(key))

/** read reads what was kept, leaving out what is no report. */
export function read(raw: string | null): Kept[] {
  try {
    const all: unknown = JSON.parse(raw ?? '[]')
    if (!Array.isArray(all)) return []
    return all.filter((x): x is Kept => typeof x?.number === 'string' && typeof x?.secret === 'string')
  } catch {
    return []
  }
}

/** keep puts one in front; it returns them all. */
export const keep = (one: Kept): Kept[] => write([one, ...kept().filter((x) => x.number !== one.number)].slice(0, most))

/** forget takes one out; it returns the others. */
export const forget = (number: string): Kept[] => write(kept().filter((x) => x.number !== number))

function write(all: Kept[]): Kept[] {
  remember(key, JSON.stringify(all))
  return all
}
