// What this browser remembers from one visit to the next.

const prefix = 'citywarden.'

/** remember keeps a text; a browser that remembers nothing keeps it until the page is closed, where it stands. */
export function remember(key: string, text: string) {
  try {
    localStorage.setItem(prefix + key, text)
  } catch {
    // it is on the page
  }
}

/** remembered returns a text that was kept, null for none. */
export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(prefix + key)
  } catch {
    return null
  }
}
