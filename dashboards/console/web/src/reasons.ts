// What the server says, in Chinese. It speaks English; what operators meet in
// their daily work is translated here, known by the format with which the
// server writes it (a test sees that it still does). What is not here is shown
// in the server's words.
import { duration, span, time } from './format'
import { lang } from './i18n'

/** chinese is by the server's format, as in its source: {0} is what stands for its first verb, {1} for its second. */
export const chinese: Record<string, string> = {
  // cases
  'no case %s': '没有案卷 {0}',
  'cannot %s a case that is %s': '案卷所处的阶段已不能这样办理。',
  '%s may not %s a case; %s may': '这一步由其他岗位办理。',
  'case %s is not dispatched to a department yet': '案卷 {0} 尚未派给部门。',
  'case %s belongs to %s, not to %s': '案卷 {0} 由{1}承办，不归{2}。',
  "case %s was sent to %s; another person can't answer": '案卷 {0} 已派给 {1}，他人不能代为回复。',
  '%s handled case %s; another person must %s it': '案卷 {1} 由 {0} 处置，这一步须由他人办理。',
  '%s was faster (%s at %s): look at case %s again': '{0} 已于 {2} 先行办理，请再看案卷 {3}。',
  '%s case %s: the note has more than %d characters': '说明超过 {2} 字。',
  '%s case %s: a photo%s is missing, %s (%s); add it to the case first': '缺少照片：{4}。请先上传。',
  'case %s has %d photos already': '案卷已有 {1} 张照片，不能再加。',
  'merge case %s: case %s is %s': '案卷 {1} 已不能并入。',
  'merge case %s: one of it and %s is a work order': '案卷与工单不能合并。',
  'new case: give a title of 1 to 200 characters': '请填写 1 至 200 字的标题。',
  // alarms
  'alarm %s was acknowledged by %s at %s': '告警已由 {1} 于 {2} 确认。',
  'alarm %s is cleared; only an active alarm can be shelved': '告警已恢复，不必搁置。',
  'alarm %s is not shelved': '告警没有搁置。',
  'alarm %s is not latched and its device not silent; it clears by itself': '告警会自行恢复，不必复位。',
  'alarm %s was taken out of service by %s at %s': '告警已由 {1} 于 {2} 停用。',
  'alarm %s is not out of service': '告警没有停用。',
  'alarm %s is out of service with device %s; return the device': '告警随设备 {1} 停用，请恢复该设备。',
  'alarm %s is assigned to nobody': '告警没有指派给任何人。',
  'alarm %s is assigned to %s already': '告警已指派给 {1}。',
  'alarm %s could not be %s: it is %s now; somebody else may have been faster, or a later alarm of the same rule has taken its place':
    '告警的状态已变：他人可能已先处理，或同一规则又有了新的告警。',
  'assign alarm %s: %s sees the area %s only': '{1} 只看得到 {2} 的告警，不能指派。',
  'comment alarm %s: the text is empty': '请填写备注。',
  'shelve alarm %s: the end lies at %s; it must be in the future and at most 30 days away': '搁置的结束时间须在将来，且不超过 30 天。',
  'out of service: the end lies at %s; it must be in the future': '停用的结束时间须在将来。',
  '%s was taken out of service by %s at %s': '已由 {1} 于 {2} 停用。',
  '%s is not out of service': '没有停用。',
  // devices and what they are told
  'no device %s': '没有设备 {0}',
  'device %s is disabled': '设备 {0} 已禁用。',
  'device %s exists already': '已有设备 {0}。',
  'that credential belongs to device %s': '该凭据属于设备 {0}。',
  '%d commands wait for device %s; wait until they are answered or expire': '设备 {1} 已有 {0} 条命令在等待，请等其应答或过期。',
  'device %s, a %s, takes no commands; its model file declares none': '设备 {0} 不接收命令：其型号文件没有声明命令。',
  'parameter %s of command %s is %s; it is %s': '参数 {0} 的值 {2} 超出允许范围（{3}）。',
  'the message of more than %d bytes is larger than the %d bytes that the device takes of a packet, as its CONNECT says':
    '命令的报文超出设备在 CONNECT 中声明的上限（{1} 字节）。',
  'that is not the secret that device %s said': '密语与设备 {0} 所示的不符。',
  // people, notices, what is kept about the county
  'the old password is wrong': '原密码不对。',
  'the password is too short: use at least %d characters': '密码太短，至少 {0} 个字符。',
  'too many wrong passwords; wait %s and try again': '密码错误次数过多，请 {0}后再试。',
  'there is a user %s already': '已有用户 {0}。',
  'notice %s to %s is %s; only a dead one can be sent again': '只有发送失败的通知可以重发。',
  'there is no receiver %s any more; see notices in the configuration': '接收人 {0} 已不在配置中。',
  'the test did not reach %s: %w': '测试通知未送达 {0}：{1}',
  'no component %q': '没有部件 {0}',
  'component %s was removed; leave it out, or correct its state': '部件 {0} 已拆除：请不填，或先更正其状态。',
  'no unit grid has the code %q or begins with it; import the unit grids first': '没有代码为 {0} 或以其开头的单元网格，请先导入。',
}

// A verb may stand for any words, in quotes where it is %q; what was tried may stand before.
const known = Object.entries(chinese).map(([format, zh]) => {
  const words = format.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/%q/g, '"(.*?)"').replace(/%[swd]/g, '(.*?)')
  return { re: new RegExp(`^(?:[^:]*: )??${words}$`, 's'), zh }
})

/** reason is what the server says in the language in use, where that is known; else as it says it. */
export function reason(said: string): string {
  if (lang() !== 'zh') return said
  for (const { re, zh } of known) {
    const m = re.exec(said)
    if (m !== null) return zh.replace(/\{(\d)\}/g, (_, i) => written(m[Number(i) + 1] ?? ''))
  }
  return said
}

/** written is what stands for a verb: a time or a duration as people read it, else as it is. */
function written(x: string): string {
  if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(x)) return time(x)
  return /^(\d+h)?(\d+m)?\d+s$/.test(x) ? span(duration(x)) : x
}
