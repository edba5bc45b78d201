// The pages about devices: the list, what became of what they sent, and what they are given.
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

/** Sections is the row of links between them. */
export const Sections = ({ at }: { at: string }) => (
  <nav class="sections" aria-label={t('nav.deviceSections')}>
    {shown().map((s) => (
      <a key={s.path} href={'/' + s.path} aria-current={s.path === at ? 'page' : undefined}>
        {t(s.title)}
      </a>
    ))}
  </nav>
)
