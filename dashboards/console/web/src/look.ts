// Light, dark and high contrast: what was chosen, else what the browser prefers.

export type Theme = 'auto' | 'light' | 'dark'

const dark = matchMedia('(prefers-color-scheme: dark)')
const more = matchMedia('(prefers-contrast: more)')

/** wear gives the page its look. */
export function wear(theme: Theme, contrast: boolean) {
  const { dataset } = document.documentElement
  dataset.theme = theme === 'auto' ? (dark.matches ? 'dark' : 'light') : theme
  dataset.contrast = contrast || more.matches ? 'more' : ''
}

/** whenPreferred calls f when the browser prefers something else. */
export function whenPreferred(f: () => void) {
  dark.addEventListener('change', f)
  more.addEventListener('change', f)
}
