package api

import (
	"context"
	"slices"

	"github.com/citywarden/citywarden"
)

// Rules are the rules that run.
type Rules interface {
	Rules() []citywarden.Rule
}

// RuleFiles are the files that the rules come from.
type RuleFiles interface {
	RuleStatus() citywarden.RuleStatus
	// ReloadRules takes the files as they are now, or says what is wrong with them.
	ReloadRules(context.Context) error
}

func (s *server) ruleRoutes() {
	const tag = "rules"
	handle(s, route{method: "GET", path: "/api/v1/rules", id: "list-rules", tag: tag, may: citywarden.MayRead,
		summary: "All rules"}, func(context.Context, *struct{}) (*listOutput[citywarden.Rule], error) {
		return listOf(s.Rules.Rules(), ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/rules/{id}", id: "get-rule", tag: tag, may: citywarden.MayRead,
		summary: "One rule with its text"}, s.getRule)
	status := func(context.Context, *struct{}) (*output[citywarden.RuleStatus], error) {
		return outputOf(s.RuleFiles.RuleStatus()), nil
	}
	handle(s, route{method: "GET", path: "/api/v1/rules/status", id: "get-rule-status", tag: tag, may: citywarden.MayRead,
		summary: "When the rules that run were read, and what is wrong with the files since"}, status)
	handle(s, route{method: "POST", path: "/api/v1/rules/reload", id: "reload-rules", tag: tag, may: citywarden.MayWriteRules,
		summary: "Take the rule files as they are now; when one has a mistake or a test that fails, the rules that run stay"},
		func(ctx context.Context, in *struct{}) (*output[citywarden.RuleStatus], error) {
			if err := s.RuleFiles.ReloadRules(ctx); err != nil {
				return nil, err
			}
			return status(ctx, in)
		})
}

func (s *server) getRule(_ context.Context, in *RulePath) (*output[citywarden.Rule], error) {
	r, err := s.rule(in.ID)
	if err != nil {
		return nil, err
	}
	return outputOf(r), nil
}

// rule returns the rule called id; CodeNotFound when there is none.
func (s *server) rule(id citywarden.RuleID) (citywarden.Rule, error) {
	rs := s.Rules.Rules()
	i := slices.IndexFunc(rs, func(r citywarden.Rule) bool { return r.ID == id })
	if i < 0 {
		return citywarden.Rule{}, citywarden.Errorf(citywarden.CodeNotFound, "no rule %s", id)
	}
	return rs[i], nil
}
