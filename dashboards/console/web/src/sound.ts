// A sound for critical alarms, for whoever switches it on in this browser. It is
// made here; browsers let it sound once the page was clicked or typed into.
import { liveEvents } from './app'
import { remember, remembered } from './remember'
import type { Alarm } from './types'

let on = remembered('sound') === 'on'
let audio: AudioContext | undefined
const heard = new Set<string>()

const wake = () => {
  if (!on) return
  audio ??= new AudioContext()
  void audio.resume()
}

/** soundOn says whether critical alarms sound in this browser. */
export const soundOn = () => on

/** setSound switches the sound; switched on, it is heard once. */
export function setSound(x: boolean) {
  on = x
  remember('sound', x ? 'on' : 'off')
  wake()
  if (x) ring()
}

/** startSound listens for critical alarms that nobody has acknowledged. */
export function startSound() {
  addEventListener('pointerdown', wake)
  addEventListener('keydown', wake)
  liveEvents.on((e) => {
    if (e.kind === 'alarm' && calls(e.data as Alarm, heard) && on) ring()
  })
}

/** calls reports whether an alarm calls for a person for the first time, and remembers it. */
export function calls(a: Alarm, heard: Set<string>): boolean {
  if (a.severity !== 'critical' || a.state !== 'active' || a.acked || a.suppressed_by || a.shelved_until || a.out_of_service_since || heard.has(a.id)) return false
  heard.add(a.id)
  return true
}

// ring is two tones, three times.
function ring() {
  if (audio === undefined) return
  for (let i = 0; i < 6; i++) {
    const at = audio.currentTime + i * 0.22
    const tone = audio.createOscillator()
    const loud = audio.createGain()
    tone.frequency.value = i % 2 === 0 ? 880 : 660
    loud.gain.setValueAtTime(0.0001, at)
    loud.gain.exponentialRampToValueAtTime(0.3, at + 0.02)
    loud.gain.exponentialRampToValueAtTime(0.0001, at + 0.2)
    tone.connect(loud).connect(audio.destination)
    tone.start(at)
    tone.stop(at + 0.2)
  }
}
