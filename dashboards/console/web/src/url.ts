// Where we are: a path and filters in the address, so that a page can be
// reloaded, sent to a colleague, and left with the browser's Back.

/** Place is an address of the console. */
export interface Place {
  path: string[]
  query: URLSearchParams
}

/** parse reads a path and a search string. */
export function parse(pathname: string, search: string): Place {
  return { path: pathname.split('/').filter(Boolean).map(decode), query: new URLSearchParams(search) }
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s)
  } catch {
    return s
  }
}

/** href writes an address; empty parameters are left out. */
export function href(path: string[], query: Record<string, string | undefined> = {}): string {
  const q = new URLSearchParams()
  for (const [k, v] of Object.entries(query)) if (v) q.set(k, v)
  const s = q.toString()
  return '/' + path.map((p) => encodeURIComponent(p).replace(/%3A/g, ':')).join('/') + (s === '' ? '' : '?' + s)
}

/** withFilter returns the search string with one filter changed; "" takes it out. */
export function withFilter(search: string, name: string, value: string): string {
  const q = new URLSearchParams(search)
  if (value === '') q.delete(name)
  else q.set(name, value)
  q.sort()
  const s = q.toString()
  return s === '' ? '' : '?' + s
}

/** choices reads a filter of several values ("critical,major"), keeping only known ones. */
export function choices<T extends string>(raw: string | null, all: readonly T[]): T[] {
  const have = new Set((raw ?? '').split(','))
  return all.filter((x) => have.has(x))
}

/** toggled puts one value into the filter, or takes it out; all and none are both written as "". */
export function toggled<T extends string>(raw: string | null, one: T, all: readonly T[]): string {
  const have = new Set<string>(choices(raw, all))
  if (!have.delete(one)) have.add(one)
  return have.size === all.length ? '' : all.filter((x) => have.has(x)).join(',')
}
