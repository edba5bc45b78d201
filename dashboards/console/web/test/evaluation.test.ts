import { expect, it } from 'vitest'
import { below, tables } from '../src/evaluation'
import type { Evaluation, EvaluationRow } from '../src/types'

const row = (key: string, more: Partial<EvaluationRow> = {}): EvaluationRow => ({ key, name: { zh: key, en: key }, figures: [], ...more })
const evaluation = (more: Partial<Evaluation>): Evaluation => ({ from: '', to: '', as_of: '', by: 'area', indicators: [], scores: [], volume: [], grades: [], rows: [], ...more })

it('puts areas and departments into one table, the total last', () => {
  const got = tables(evaluation({ rows: [row('a'), row('b')], total: row('') }))
  expect(got.map((x) => x.rows.map((r) => r.key))).toEqual([['a', 'b', '']])
})

it('gives each post a table, the post before its people', () => {
  const rows = [row('officer', { post: 'officer' }), row('officer/lin', { post: 'officer', person: 'lin' }), row('dispatcher', { post: 'dispatcher' })]
  expect(tables(evaluation({ by: 'post', rows })).map((x) => [x.of, ...x.rows.map((r) => r.key)])).toEqual([
    ['officer', 'officer', 'officer/lin'],
    ['dispatcher', 'dispatcher'],
  ])
})

it('goes down from counties to unit grids', () => {
  expect(['350623', '350623100', '350623100001', '350623100001004', ''].map(below)).toEqual(['town', 'village', 'grid', '', 'county'])
})
