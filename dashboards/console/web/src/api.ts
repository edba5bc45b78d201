// The client of the HTTP API. Signed in by the session cookie; every error is
// an ApiError with the server's own words.
import { Parser } from './live'
import type { List, Mistake } from './types'

/** ApiError is an answer that is not 2xx, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly mistakes: Mistake[] = [], // in a rule file that was sent
  ) {
    super(message)
  }
}

let onSignedOut: () => void = () => {}

/** whenSignedOut sets what happens once the server says that nobody is signed in. */
export function whenSignedOut(f: () => void) {
  onSignedOut = f
}

const file = (body: unknown): body is FormData | Blob => body instanceof FormData || body instanceof Blob

async function ask(method: string, path: string, accept: string, body?: unknown, signal?: AbortSignal, more?: Record<string, string>): Promise<Response> {
  let res: Response
  try {
    res = await fetch('/api/v1' + path, {
      method,
      credentials: 'same-origin',
      headers: { Accept: accept, ...(body !== undefined && !file(body) && { 'Content-Type': 'application/json' }), ...more },
      body: body === undefined || file(body) ? body : JSON.stringify(body),
      signal,
    })
  } catch (e) {
    if (signal?.aborted) throw e
    throw new ApiError(0, 'transient', '')
  }
  if (res.status === 401 && path !== '/login' && path !== '/me') onSignedOut()
  if (!res.ok) throw await refused(res)
  return res
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, more?: Record<string, string>): Promise<T> {
  const res = await ask(method, path, 'application/json', body, signal, more)
  if (res.status === 204) return undefined as T
  const text = await res.text()
  return (text === '' ? undefined : JSON.parse(text)) as T
}

interface Problem {
  status?: number
  title?: string
  detail?: string
  code?: string
  errors?: { message?: string }[]
  problems?: Mistake[]
}

async function refused(res: Response): Promise<ApiError> {
  try {
    return problem(res.status, await res.json())
  } catch {
    return new ApiError(res.status, '', res.statusText || String(res.status))
  }
}

function problem(status: number, p: Problem): ApiError {
  const more = (p.errors ?? []).map((e) => e.message)
  const words = [p.detail || p.title, ...more].filter(Boolean).join(': ')
  return new ApiError(status, p.code ?? '', words || String(status), p.problems)
}

/** stream posts and calls progress until the result is there, which it returns. */
export async function stream<P, R>(path: string, body: unknown, progress: (p: P) => void, signal: AbortSignal): Promise<R> {
  const res = await ask('POST', path, 'text/event-stream', body, signal)
  const reader = res.body!.getReader()
  const decoder = new TextDecoder()
  const parser = new Parser()
  for (;;) {
    const { done, value } = await reader.read().catch((e) => {
      if (signal.aborted) throw e
      return { done: true, value: undefined }
    })
    if (done) throw new ApiError(0, 'transient', '')
    for (const m of parser.feed(decoder.decode(value, { stream: true }))) {
      const data = JSON.parse(m.data)
      if (m.event === 'problem') throw problem(data.status ?? 500, data)
      if (m.event === 'result') return data as R
      if (m.event === 'progress') progress(data as P)
    }
  }
}

export const get = <T>(path: string, signal?: AbortSignal, headers?: Record<string, string>) => call<T>('GET', path, undefined, signal, headers)
export const post = <T>(path: string, body: unknown = {}) => call<T>('POST', path, body)
export const put = <T>(path: string, body: unknown) => call<T>('PUT', path, body)
export const remove = (path: string) => call<void>('DELETE', path)
/** send posts a form with files. */
export const send = <T>(path: string, form: FormData) => call<T>('POST', path, form)

/** upload posts a file as it is. */
export const upload = <T>(path: string, body: Blob, type: string) => call<T>('POST', path, body, undefined, { 'Content-Type': type })

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
    items.push(...page.items)
    after = page.next ?? undefined
  } while (after !== undefined && items.length < max)
  return { items, more: after !== undefined }
}

/** enc makes an identifier safe inside a path. */
export const enc = (id: string) => encodeURIComponent(id).replace(/%3A/gi, ':')
