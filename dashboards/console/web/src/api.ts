// The client of the HTTP API. Signed in by the session cookie; every error is
// an ApiError with the server's own words.
import type { List } from './types'

/** ApiError is an answer that is not 2xx, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

let onSignedOut: () => void = () => {}

/** whenSignedOut sets what happens once the server says that nobody is signed in. */
export function whenSignedOut(f: () => void) {
  onSignedOut = f
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  let res: Response
  try {
    res = await fetch('/api/v1' + path, {
      method,
      credentials: 'same-origin',
      headers: body === undefined ? { Accept: 'application/json' } : { Accept: 'application/json', 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    })
  } catch (e) {
    if (signal?.aborted) throw e
    throw new ApiError(0, 'transient', '')
  }
  if (res.status === 401 && path !== '/login' && path !== '/me') onSignedOut()
  if (!res.ok) throw await problem(res)
  if (res.status === 204) return undefined as T
  const text = await res.text()
  return (text === '' ? undefined : JSON.parse(text)) as T
}

async function problem(res: Response): Promise<ApiError> {
  try {
    const p = await res.json()
    const more = Array.isArray(p.errors) ? p.errors.map((e: { message?: string }) => e.message).filter(Boolean) : []
    const words = [p.detail || p.title, ...more].filter(Boolean).join(': ')
    return new ApiError(res.status, p.code ?? '', words || res.statusText)
  } catch {
    return new ApiError(res.status, '', res.statusText || String(res.status))
  }
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>('GET', path, undefined, signal)
export const post = <T>(path: string, body: unknown = {}) => call<T>('POST', path, body)

/** query writes the parameters that have a value as "?a=b&c=d", or "". */
export function query(params: Record<string, string | number | boolean | undefined>): string {
  const q = new URLSearchParams()
  for (const [k, v] of Object.entries(params)) if (v !== undefined && v !== '' && v !== false) q.set(k, String(v))
  const s = q.toString()
  return s === '' ? '' : '?' + s
}

/** list follows the cursors of a list until its end or until max items are there. */
export async function list<T>(
  path: string,
  params: Record<string, string | number | boolean | undefined>,
  max: number,
  signal?: AbortSignal,
): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = []
  let after: string | undefined
  do {
    const page = await get<List<T>>(path + query({ ...params, after, limit: Math.min(1000, max - items.length) }), signal)
    items.push(...(page.items ?? []))
    after = page.next ?? undefined
  } while (after !== undefined && items.length < max)
  return { items, more: after !== undefined }
}

/** enc makes an identifier safe inside a path. */
export const enc = (id: string) => encodeURIComponent(id).replace(/%3A/gi, ':')
