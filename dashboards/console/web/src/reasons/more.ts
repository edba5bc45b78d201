// All that is not said daily, in one file that is loaded after the page.
export { away, wires } from './away'
export { imports } from './imports'
export { letters } from './letters'
export { names, parts, places, shapes } from './parts'
export { rules } from './rules'
