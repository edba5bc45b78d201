package rules

import "slices"

// shape says what may stand at a place of a rule file. The loader takes the
// keys of mappings from here and the JSON Schema for editors is made from it,
// so that the two can't differ.
type shape struct {
	what   string         // how messages call it
	keys   []key          // of a mapping
	free   *shape         // of a mapping with names of one's own: what they stand for
	item   *shape         // of a list
	most   int            // items of it; 0 as many as a file has room for
	single bool           // one item may stand without the list
	scalar map[string]any // of anything else, as JSON Schema
}

// key is one key of a mapping.
type key struct {
	name string
	need bool
	val  shape
	help string
}

func mapping(what string, keys ...key) shape { return shape{what: what, keys: keys} }
func listOf(of shape) shape                  { return shape{item: &of} }
func oneOrList(of shape) shape               { return shape{item: &of, single: true} }
func few(most int, of shape) shape           { return shape{item: &of, most: most} }

func (s shape) names() []string {
	out := make([]string, len(s.keys))
	for i, k := range s.keys {
		out[i] = k.name
	}
	return out
}

// index returns where in keys that of the name is, -1 when there is none.
func (s shape) index(name string) int {
	return slices.IndexFunc(s.keys, func(k key) bool { return k.name == name })
}

// as returns the shape under another name for messages.
func (s shape) as(what string) shape {
	s.what = what
	return s
}

// enum returns what a key of s can be.
func (s shape) enum(name string) []string {
	return s.keys[s.index(name)].val.scalar["enum"].([]string)
}

// In YAML a text needs no quotes, so that it may look like a number or a bool.
var plainText = []string{"string", "number", "boolean"}

func pattern(p string) shape {
	return shape{scalar: map[string]any{"type": "string", "pattern": p}}
}

func oneOf(names ...string) shape { return shape{scalar: map[string]any{"enum": names}} }

func whole(least, most int) shape {
	return shape{scalar: map[string]any{"type": "integer", "minimum": least, "maximum": most}}
}

var (
	textShape      = shape{scalar: map[string]any{"type": plainText, "minLength": 1}}
	templateShape  = shape{scalar: map[string]any{"type": plainText, "minLength": 1, "maxLength": maxTemplate}}
	flagShape      = shape{scalar: map[string]any{"type": "boolean"}}
	valueShape     = shape{scalar: map[string]any{"type": plainText}}
	conditionShape = shape{scalar: map[string]any{"type": plainText, "minLength": 1, "maxLength": maxText}}
	durationShape  = shape{scalar: map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": `^(\+?([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[0-9]+d$|^[+-]?0$`},
		map[string]any{"const": 0},
	}}}
	laterShape     = shape{scalar: map[string]any{"anyOf": []any{map[string]any{"type": "string"}, map[string]any{"const": 0}}}}
	idShape        = shape{scalar: map[string]any{"type": []string{"string", "integer"}, "pattern": ruleID.String()}}
	attributeShape = pattern(attrName.String())
	severityShape  = oneOf("critical", "major", "minor", "warning", "indeterminate")
	titleShape     = shape{what: "title", scalar: map[string]any{"type": plainText}, keys: []key{
		{"zh", false, textShape, "in Chinese"},
		{"en", false, textShape, "in English"},
	}}
)

var clauseShape = mapping("clear",
	key{"when", true, conditionShape, "the condition, over metrics, attributes (attr.x) and functions"},
	key{"for", false, durationShape, "how long it has to hold, in event time"},
)

var selectShape = mapping("select",
	key{"model", true, oneOrList(textShape), "the models of the devices that the rule watches"},
	key{"where", false, conditionShape, "a condition over attributes that a device has to satisfy"},
)

var groupShape = mapping("group",
	key{"by", true, attributeShape, "devices with the same value of this attribute share one alarm, like attr.zone"},
)

var levelShape = mapping("a level",
	key{"severity", true, severityShape, "how bad it is; each severity once"},
	key{"when", true, conditionShape, "the condition that raises it"},
	key{"for", false, durationShape, "how long the condition has to hold, in event time"},
	key{"clear", false, clauseShape, "when this level ends, instead of the rule's clear"},
)

var scheduleShape = mapping("schedule",
	key{"tz", false, textShape, "time zone, like Asia/Shanghai, which is the default"},
	key{"active", true, few(maxIntervals, textShape), "when the rule watches, like mon-fri 22:00-06:00; over midnight it belongs to the day it starts"},
	key{"holidays", false, oneOf("off", "all-day"), "on holidays not at all, or all day"},
)

var flapShape = mapping("flap",
	key{"changes", true, whole(2, maxFlaps), "so many changes"},
	key{"in", true, durationShape, "within that time make the alarm stay"},
	key{"then", false, oneOf("hold"), "what happens: it is held"},
)

var stormShape = mapping("storm",
	key{"by", true, attributeShape, "devices are counted by this attribute, like attr.district"},
	key{"over", true, whole(1, maxCount), "more than so many of them"},
	key{"in", true, durationShape, "within that time are a storm"},
	key{"raise", true, idShape, "the rule id of the alarm that stands for all of them"},
	key{"severity", true, severityShape, "its severity"},
	key{"title", false, titleShape, "what people see of that alarm, in one language or both"},
)

var inhibitorShape = mapping("an inhibitor",
	key{"rule", true, textShape, "an active alarm of this rule holds this one back"},
	key{"equal", false, few(maxEqual, attributeShape), "when both devices have the same value of these attributes"},
)

var closeShape = mapping("close",
	key{"cleared_for", true, durationShape, "close the case when its alarms were cleared for that long"},
)

var escalationShape = mapping("an escalation",
	key{"after", true, durationShape, "after that long"},
	key{"unless", false, oneOf("acked"), "unless somebody acknowledged the alarm"},
	key{"to", true, textShape, "whom to tell: a receiver in the configuration"},
)

var limitShape = mapping("limit",
	key{"cases", true, whole(1, maxCount), "when the rule opened so many cases"},
	key{"in", true, durationShape, "within that time, one summary case takes what is more"},
)

var orderShape = mapping("case",
	key{"class", false, pattern(classCode.String()), "class of GB/T 30428.2, like event/0595, or of CJ/T 214, like event/0402@cjt214"},
	key{"key", true, templateShape, "names its one open case, like fire/{{zone}}"},
	key{"merge", false, durationShape, "an alarm within that time reopens the case"},
	key{"escalate", false, few(maxEscalations, escalationShape), "whom to tell when nobody cares"},
	key{"parent", false, templateShape, "key of the case of the rule's storms"},
	key{"hold", false, durationShape, "how long the first notice waits"},
	key{"close", false, closeShape, "when the case is closed without a person"},
	key{"limit", false, limitShape, "how many cases the rule may open; 50 within 10m without it"},
)

var ruleShape = mapping("a rule",
	key{"id", true, idShape, "names the rule; its alarms keep their state by it"},
	key{"title", false, titleShape, "what people see, in one language or both"},
	key{"mode", false, oneOf("live", "shadow"), "shadow evaluates and records, but opens no case"},
	key{"select", true, selectShape, "the devices that it watches"},
	key{"group", false, groupShape, "one alarm per group instead of one per device"},
	key{"late", false, durationShape, "how long readings that arrive out of order are waited for"},
	key{"levels", true, few(maxLevels, levelShape), "severities with their conditions"},
	key{"clear", false, clauseShape, "when the alarm ends; without it, when the level's condition is false"},
	key{"latch", false, flagShape, "true: it stays until an operator resets it"},
	key{"schedule", false, scheduleShape, "when it watches; always without it"},
	key{"flap", false, flapShape, "what to do with an alarm that comes and goes"},
	key{"storm", false, stormShape, "one alarm instead of many at once"},
	key{"inhibit_by", false, few(maxInhibitors, inhibitorShape), "rules whose alarms explain this one"},
	key{"case", false, orderShape, "the case that it opens"},
	key{"workorder", false, orderShape.as("workorder"), "maintenance instead of a case"},
)

var attrsShape = shape{what: "attr", free: &valueShape}

var deviceShape = mapping("a device",
	key{"model", true, textShape, "its model"},
	key{"attr", false, attrsShape, "its attributes"},
	key{"adjacent", false, oneOrList(textShape), "its neighbours"},
)

var devicesShape = shape{what: "devices", free: &deviceShape}

var inputShape = mapping("an input",
	key{"device", true, textShape, "the device that measures"},
	key{"metric", true, textShape, "what it measures"},
	key{"at", false, durationShape, "when the first value is measured, after the start"},
	key{"every", false, durationShape, "the time between two values"},
	key{"values", true, valueShape, "values separated by spaces; 4.0x10 repeats, - leaves one out"},
	key{"arrive", false, laterShape, "how much later they arrive, like +90s"},
	key{"clock", false, laterShape, "how far the device's clock is ahead, like +10m or -10m"},
)

var testOrderShape = mapping("an order",
	key{"at", false, durationShape, "when, after the start"},
	key{"ack", false, textShape, "acknowledge the alarm of this rule"},
	key{"shelve", false, textShape, "shelve the alarm of this rule"},
	key{"unshelve", false, textShape, "take it back from the shelf"},
	key{"out_of_service", false, textShape, "take the alarm of this rule out of service"},
	key{"in_service", false, textShape, "return it to service"},
	key{"reset", false, textShape, "reset the latched alarm of this rule"},
	key{"entity", false, textShape, "of this device or group"},
	key{"device", false, textShape, "of this device"},
	key{"by", false, textShape, "who does it"},
	key{"reason", false, textShape, "why"},
	key{"for", false, durationShape, "how long it is shelved"},
)

var expectationShape = mapping("an expectation",
	key{"at", false, durationShape, "when, after the start"},
	key{"none", false, textShape, "this rule has no active alarm"},
	key{"alarm", false, textShape, "this rule has an alarm"},
	key{"device", false, textShape, "of this device"},
	key{"entity", false, textShape, "of this device or group"},
	key{"state", false, oneOf("normal", "pending", "active", "clearing", "cleared", "latched"), "where it stands"},
	key{"severity", false, severityShape, "its severity"},
	key{"case", false, textShape, "the key of its case"},
	key{"acked", false, flagShape, "whether it is acknowledged"},
	key{"acked_by", false, textShape, "who acknowledged it"},
	key{"suppressed", false, oneOf("none", "shelved", "by_design", "out_of_service"), "how it is kept from being annunciated; by_design is by an inhibitor or a storm"},
	key{"annunciated", false, flagShape, "whether it is active and calls for people: nothing suppresses it, and it is not in mode shadow"},
	key{"members", false, oneOrList(textShape), "devices that are among its members"},
	key{"why", false, textShape, "a text that its explanation contains"},
)

var testShape = mapping("a test",
	key{"name", true, textShape, "what it shows"},
	key{"start", false, textShape, "when it begins, like 2026-01-05T08:00:00+08:00, which is the default"},
	key{"devices", false, devicesShape, "the devices in it"},
	key{"input", false, listOf(inputShape), "what they measure"},
	key{"orders", false, listOf(testOrderShape), "what operators do"},
	key{"restart_at", false, listOf(durationShape), "when the platform crashes and recovers"},
	key{"expect", true, listOf(expectationShape), "what has to be true"},
)

var fileShape = mapping("a rule file",
	key{"rules", false, listOf(ruleShape), "the rules"},
	key{"tests", false, listOf(testShape), "tests of them; a file with a failing test is refused"},
)
