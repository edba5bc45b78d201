// Rules: what is loaded, to read.
import { enc, get } from '../api'
import { useLoad } from '../app'
import { t, text } from '../i18n'
import { Empty, Failed, Icon, Loading, modelTitle, SeverityMark } from '../ui'
import { href } from '../url'
import type { List, Rule } from '../types'
import { Fact } from './cases'

export function Rules() {
  const loaded = useLoad('rules', (signal) => get<List<Rule>>('/rules', signal))
  const items = loaded.data === undefined ? undefined : (loaded.data.items ?? [])
  return (
    <>
      <div class="head">
        <h1>{t('ru.title')}</h1>
        <span class="quiet">{t('ru.readonly')}</span>
      </div>
      {items === undefined ? (
        loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
      ) : items.length === 0 ? (
        <Empty>{t('ru.none')}</Empty>
      ) : (
        <table class="rows rules" role="table">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader">{t('ru.rule')}</th>
              <th role="columnheader">{t('ru.severity')}</th>
              <th role="columnheader">{t('ru.mode')}</th>
              <th role="columnheader">{t('ru.models')}</th>
              <th role="columnheader">{t('ru.file')}</th>
            </tr>
          </thead>
          <tbody role="rowgroup">
            {items.map((r) => (
              <tr role="row" key={r.id}>
                <td role="cell" class="c-main">
                  <a class="title" href={href(['rules', r.id])}>
                    {text(r.title, r.id)}
                  </a>
                  <span class="sub">{r.id}</span>
                </td>
                <td role="cell">
                  <SeverityMark of={r.severity} quiet />
                </td>
                <td role="cell">{t(`ru.mode.${r.mode}`)}</td>
                <td role="cell">{(r.models ?? []).map(modelTitle).join(t('c.comma'))}</td>
                <td role="cell" class="quiet">
                  {r.file}:{r.line}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </>
  )
}

/** RulePage is one rule with its text. */
export function RulePage({ id }: { id: string }) {
  const loaded = useLoad('rule ' + id, (signal) => get<Rule>('/rules/' + enc(id), signal))
  const r = loaded.data
  if (r === undefined) return loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
  return (
    <>
      <p class="crumb">
        <a href="/rules">
          <Icon name="back" size={14} /> {t('ru.title')}
        </a>
      </p>
      <div class="head">
        <h1>{text(r.title, r.id)}</h1>
        <SeverityMark of={r.severity} quiet />
        <a href={href(['alarms'], { rule: r.id })}>{t('ru.alarms')}</a>
      </div>
      <div class="columns">
        <section class="card">
          <h2>{t('ru.text')}</h2>
          <pre class="code yaml" tabIndex={0} lang="en">
            {r.text.split('\n').map((l, i) => (
              <YamlLine key={i} of={l} />
            ))}
          </pre>
        </section>
        <section class="card facts">
          <h2>{t('c.details')}</h2>
          <dl>
            <Fact name={t('ru.rule')}>{r.id}</Fact>
            <Fact name={t('ru.mode')}>
              {t(`ru.mode.${r.mode}`)}
              {r.mode === 'shadow' && <span class="sub">{t('ru.shadowText')}</span>}
            </Fact>
            <Fact name={t('ru.models')}>{(r.models ?? []).map(modelTitle).join(t('c.comma'))}</Fact>
            <Fact name={t('ru.file')}>
              {r.file}:{r.line}
            </Fact>
            <Fact name={t('ru.version')}>{r.version}</Fact>
          </dl>
        </section>
      </div>
    </>
  )
}

function YamlLine({ of }: { of: string }) {
  const m = /^(\s*(?:- )?)([\w.]+:)?(.*?)(\s#.*)?$/.exec(of)
  return (
    <>
      {m === null ? (
        of
      ) : (
        <>
          {m[1]}
          {m[2] && <span class="y-key">{m[2]}</span>}
          {m[3]}
          {m[4] && <span class="y-com">{m[4]}</span>}
        </>
      )}
      {'\n'}
    </>
  )
}
