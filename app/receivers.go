package app

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/notices"
	"github.com/citywarden/citywarden/notices/mail"
	"github.com/citywarden/citywarden/notices/robot"
	"github.com/citywarden/citywarden/notices/webhook"
)

// NoticesConfig is who is told of cases.
type NoticesConfig struct {
	Mail      MailConfig       `yaml:"mail"`
	Receivers []ReceiverConfig `yaml:"receivers"`
}

// MailConfig is the server that takes mail to receivers.
type MailConfig struct {
	Server   string `yaml:"server"`   // host:port
	Security string `yaml:"security"` // starttls, tls or none
	User     string `yaml:"user"`     // "" for no sign-in
	Password string `yaml:"password"` // CITYWARDEN_MAIL_PASSWORD overrides it
	From     string `yaml:"from"`     // address of the sender
}

// ReceiverConfig is one receiver of notices. It has one channel.
type ReceiverConfig struct {
	Name string `yaml:"name"` // that rules escalate to
	All  bool   `yaml:"all"`  // gets every notice, not only the escalations to it

	Webhook  string   `yaml:"webhook"`  // URL that notices are posted to
	Mail     []string `yaml:"mail"`     // addresses
	DingTalk string   `yaml:"dingtalk"` // webhook URL of a robot in a group
	WeCom    string   `yaml:"wecom"`    // webhook URL of a robot in a group
	Feishu   string   `yaml:"feishu"`   // webhook URL of a robot in a group
	Secret   string   `yaml:"secret"`   // that signs them; "" for no signature

	Language string `yaml:"language"` // of mail and robots: zh or en; "" means zh
	Title    string `yaml:"title"`    // template of their title; "" for the usual one
	Text     string `yaml:"text"`     // template of the rest
	Quiet    string `yaml:"quiet"`    // hours like 22:00-07:00 in which only urgent notices go out
}

// receivers returns the receivers of notices; a keyError names what is wrong.
func (c *NoticesConfig) receivers(zone *time.Location) ([]cases.Receiver, error) {
	var out []cases.Receiver
	for i, r := range c.Receivers {
		key := fmt.Sprintf("notices.receivers.%d", i)
		switch {
		case r.Name == "":
			return nil, keyErrorf(key, "give the receiver a name, which rules can escalate to")
		case slices.ContainsFunc(out, func(o cases.Receiver) bool { return o.Name == r.Name }):
			return nil, keyErrorf(key+".name", "there is a receiver %s already", r.Name)
		}
		quiet, err := cases.ParseQuiet(r.Quiet, zone)
		if err != nil {
			return nil, keyErrorf(key+".quiet", "%v", err)
		}
		channel, s, err := c.sender(key, r, zone)
		if err != nil {
			return nil, err
		}
		out = append(out, cases.Receiver{Name: r.Name, Channel: channel, All: r.All, Quiet: quiet, Sender: s})
	}
	return out, nil
}

// sender returns the channel of r, whose key is key.
func (c *NoticesConfig) sender(key string, r ReceiverConfig, zone *time.Location) (name string, s cases.Sender, err error) {
	t, err := notices.NewTemplate(notices.Options{Language: r.Language, Title: r.Title, Text: r.Text, Zone: zone})
	var bad *notices.TemplateError
	if errors.As(err, &bad) {
		return "", nil, keyErrorf(key+"."+bad.Field, "%v", err)
	}
	type channel struct {
		name string
		used bool
		open func() (cases.Sender, error)
	}
	channels := slices.DeleteFunc([]channel{
		{"webhook", r.Webhook != "", func() (cases.Sender, error) { return webhook.New(r.Webhook, r.Secret) }},
		{"mail", len(r.Mail) > 0, func() (cases.Sender, error) { return mail.New(c.Mail.options(), r.Mail, t) }},
		{"dingtalk", r.DingTalk != "", func() (cases.Sender, error) { return robot.NewDingTalk(r.DingTalk, r.Secret, t) }},
		{"wecom", r.WeCom != "", func() (cases.Sender, error) { return robot.NewWeCom(r.WeCom, t) }},
		{"feishu", r.Feishu != "", func() (cases.Sender, error) { return robot.NewFeishu(r.Feishu, r.Secret, t) }},
	}, func(x channel) bool { return !x.used })
	if len(channels) != 1 {
		return "", nil, keyErrorf(key, "give the receiver one channel: webhook, mail, dingtalk, wecom or feishu")
	}
	used := channels[0].name
	switch {
	case used == "webhook" && r.Language+r.Title+r.Text != "":
		return "", nil, keyErrorf(key+".webhook", "a webhook gets JSON in both languages; language, title and text are for mail and robots")
	case r.Secret != "" && (used == "mail" || used == "wecom"):
		return "", nil, keyErrorf(key+".secret", "%s has no signature; leave the secret out", used)
	}
	if used == "mail" {
		o := c.Mail.options()
		if err := o.Check(); err != nil {
			return "", nil, keyErrorf("notices.mail", "%v", err)
		}
	}
	s, err = channels[0].open()
	if err != nil {
		return "", nil, keyErrorf(key+"."+used, "%v", err)
	}
	return used, s, nil
}

func (c MailConfig) options() mail.Options {
	return mail.Options{Server: c.Server, Security: c.Security, User: c.User, Password: c.Password, From: c.From}
}

func (c *NoticesConfig) names() []string {
	var out []string
	for _, r := range c.Receivers {
		out = append(out, r.Name)
	}
	return out
}
