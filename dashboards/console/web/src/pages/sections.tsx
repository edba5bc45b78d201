// The pages about devices: the list, what became of what they sent, and what they are given.
import { useLayoutEffect, useRef } from 'preact/hooks'
import { may } from '../app'
import { t, type Key } from '../i18n'

const all: { path: string; title: Key; may?: 'devices' | 'claim' }[] = [
  { path: 'devices', title: 'de.title' },
  { path: 'claim', title: 'cl.title', may: 'claim' },
  { path: 'components', title: 'nav.components' },
  { path: 'sites', title: 'nav.sites' },
  { path: 'grids', title: 'nav.grids' },
  { path: 'ledger', title: 'nav.ledger' },
  { path: 'deadletters', title: 'nav.deadletters' },
  { path: 'firmware', title: 'nav.firmware', may: 'devices' },
  { path: 'provisioning', title: 'nav.provisioning', may: 'devices' },
  { path: 'uplinks', title: 'nav.uplinks', may: 'devices' },
]

const shown = () => all.filter((s) => s.may === undefined || may(s.may))

/** deviceSections are the first parts of the addresses of these pages, as far as the user may see them. */
export const deviceSections = () => shown().map((s) => s.path)

/** Sections is the row of links between them; that of the page that is shown is in sight, also where the row is wider than the window. */
export function Sections({ at }: { at: string }) {
  const row = useRef<HTMLElement>(null)
  useLayoutEffect(() => row.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }), [at])
  return (
    <nav class="sections" aria-label={t('nav.deviceSections')} ref={row}>
      {shown().map((s) => (
        <a key={s.path} href={'/' + s.path} aria-current={s.path === at ? 'page' : undefined}>
          {t(s.title)}
        </a>
      ))}
    </nav>
  )
}
