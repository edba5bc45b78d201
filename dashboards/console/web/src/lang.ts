// The languages, apart from the texts, so that the citizens' page stays small.

export type Lang = 'zh' | 'en'

/** firstLang picks the remembered language, else the first of the browser's that is known. */
export function firstLang(remembered: string | null, browser: readonly string[]): Lang {
  if (remembered === 'zh' || remembered === 'en') return remembered
  for (const b of browser) {
    if (/^zh\b/i.test(b)) return 'zh'
    if (/^en\b/i.test(b)) return 'en'
  }
  return 'en'
}
