import { expect, it } from 'vitest'
import { read, typed, union } from '../src/attributes'
import type { Attribute } from '../src/types'

const a = (name: string, kind: Attribute['kind']): Attribute => ({ name, kind, title: { zh: name, en: name } })
const declared = [a('height', 'number'), a('covered', 'bool'), a('zone', 'text')]

it('reads what was typed as what is declared, and leaves out what is empty', () => {
  expect(read({ height: ' 2.8 ', covered: 'false', zone: '07', gateway: '' }, declared)).toEqual({ values: { height: 2.8, covered: false, zone: '07' } })
})

it('says which number is none', () => {
  expect(read({ zone: 'x', height: '2,8' }, declared)).toEqual({ wrong: 'height' })
})

it('leaves what no model declares as it was', () => {
  const before = { floor: 3, outdoors: true, imei: '0042' }
  expect(read(typed(before), declared, before)).toEqual({ values: before })
})

it('offers each attribute of the models once, but not the name of the site', () => {
  expect(union([{ attributes: [a('zone', 'text'), a('site', 'text')] }, { attributes: null }, { attributes: [a('zone', 'text'), a('height', 'number')] }]).map((x) => x.name)).toEqual(['height', 'zone'])
})
