// Attributes: the fields to set them, and what a device made of them.
import { enc, get } from '../api'
import { useLive, useLoad } from '../app'
import type { Typed } from '../attributes'
import { duration, span, unit, value } from '../format'
import { known, t, text } from '../i18n'
import { Icon, Listing } from '../ui'
import type { Attribute, AttributeState, Device, List, Model, Site } from '../types'

/** useSites loads the sites. */
export const useSites = () => useLoad('sites', async (signal) => (await get<List<Site>>('/sites', signal)).items)

interface FieldsProps {
  of: readonly Attribute[] // declared, in this order
  values: Typed
  set: (v: Typed) => void
  site?: Site // whose values hold where the field is empty
}

/** AttributeFields are the fields of attributes; those that are set and not declared come last. */
export function AttributeFields({ of, values, set, site }: FieldsProps) {
  const sites = useSites()
  const extra = Object.keys(values).filter((k) => !of.some((a) => a.name === k))
  const all: Attribute[] = [...of, ...extra.map((name): Attribute => ({ name, kind: 'text', title: { zh: name, en: name } }))]
  const change = (name: string, s: string) => set({ ...values, [name]: s })
  return (
    <div class="pair">
      {all.map((a) => {
        const otherwise = site?.attributes[a.name] ?? a.default
        return (
          <label key={a.name}>
            <span>
              {text(a.title, a.name)} {unit(a.unit) && <span class="quiet">({unit(a.unit)})</span>}
            </span>
            {a.kind === 'bool' ? (
              <select value={values[a.name] ?? ''} onChange={(e) => change(a.name, e.currentTarget.value)}>
                <option value="">{otherwise === undefined ? '' : t('de.attrDefault', value(otherwise))}</option>
                <option value="true">{t('c.yes')}</option>
                <option value="false">{t('c.no')}</option>
              </select>
            ) : (
              <input
                value={values[a.name] ?? ''}
                list={a.name === 'site' ? 'sites' : undefined}
                inputMode={a.kind === 'number' ? 'decimal' : undefined}
                placeholder={otherwise === undefined ? '' : t('de.attrDefault', String(otherwise))}
                onInput={(e) => change(a.name, e.currentTarget.value)}
              />
            )}
          </label>
        )
      })}
      <datalist id="sites">
        {(sites.data ?? []).map((s) => (
          <option key={s.id} value={s.id} label={s.name} />
        ))}
      </datalist>
    </div>
  )
}

/** shown is a value of an attribute as people read it. */
const shown = (v: unknown, unit?: string) => (typeof v === 'string' && duration(v) > 0 ? span(duration(v)) : value(v, unit))

/** Attributes is the card of a device with what is set for it, and beside it what it reports of itself. */
export function Attributes({ d, model }: { d: Device; model: Model | undefined }) {
  const loaded = useLoad('attributes of ' + d.id, async (signal) => (await get<List<AttributeState>>(`/devices/${enc(d.id)}/attributes`, signal)).items)
  useLive<{ id: string }>('device', (x) => x.id === d.id && loaded.again())
  const all = loaded.data ?? []
  return (
    <section class="card">
      <h2>{t('de.attributes')}</h2>
      <Listing of={loaded} n={all.length} none={t('at.none')}>
        <table class="plain">
          <thead>
            <tr>
              <th>{t('at.name')}</th>
              <th>{t('at.set')}</th>
              <th>{t('at.reported')}</th>
              <th>{t('at.state')}</th>
            </tr>
          </thead>
          <tbody>
            {all.map((x) => {
              const a = model?.attributes?.find((a) => a.name === x.name)
              return (
                <tr key={x.name}>
                  <td>
                    {text(a?.title, x.name)}
                    {a !== undefined && text(a.title) !== x.name && <span class="sub">{x.name}</span>}
                  </td>
                  <td>
                    {x.value === undefined ? (
                      <span class="quiet">–</span>
                    ) : (
                      <>
                        {shown(x.value, a?.unit)}
                        <span class="sub">{x.from && known('at.from.', x.from)}</span>
                      </>
                    )}
                  </td>
                  <td>{x.reported === undefined ? <span class="quiet">–</span> : shown(x.reported, a?.unit)}</td>
                  <td>{x.state === undefined ? <span class="quiet">{t(x.scope === 'client' ? 'at.own' : 'at.untold')}</span> : <Agreement of={x.state} />}</td>
                </tr>
              )
            })}
          </tbody>
        </table>
      </Listing>
    </section>
  )
}

const Agreement = ({ of }: { of: NonNullable<AttributeState['state']> }) => (
  <span class={'mark' + (of === 'differs' ? '' : ' quiet')}>
    <Icon name={of === 'differs' ? 'warn' : of === 'agreed' ? 'check' : 'never'} size={15} /> {t(`at.${of}`)}
  </span>
)
