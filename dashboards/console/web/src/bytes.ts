// Bytes of messages as people read them.

export const bytes = (base64: string) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))

/** words returns the text that b is, undefined when it is none. */
function words(b: Uint8Array): string | undefined {
  try {
    const s = new TextDecoder('utf-8', { fatal: true }).decode(b)
    return /[\u0000-\u0008\u000e-\u001f]/.test(s) ? undefined : s
  } catch {
    return undefined
  }
}

const hex = (b: Uint8Array) => [...b].map((x) => x.toString(16).padStart(2, '0')).join(' ')

/** readable writes the beginning of a payload as text, in hexadecimal what is none. */
export function readable(b: Uint8Array): string {
  const more = b.length > 256 ? ' …' : ''
  return (words(b)?.slice(0, 256) ?? hex(b.subarray(0, 256))) + more
}

/** dump writes bytes in lines of 16: where they begin, hexadecimal, and as text what is text. */
export function dump(b: Uint8Array): string {
  const lines: string[] = []
  for (let i = 0; i < b.length; i += 16) {
    const some = b.subarray(i, i + 16)
    const text = [...some].map((x) => (x >= 0x20 && x < 0x7f ? String.fromCharCode(x) : '.')).join('')
    lines.push(`${i.toString(16).padStart(4, '0')}  ${hex(some).padEnd(47)}  ${text}`)
  }
  return lines.join('\n')
}
