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

func (s *server) ruleRoutes() {
	const tag = "rules"
	handle(s, route{method: "GET", path: "/api/v1/rules", id: "list-rules", tag: tag, may: citywarden.MayRead,
		summary: "All rules"}, func(context.Context, *struct{}) (*listOutput[citywarden.Rule], error) {
		return listOf(s.Rules.Rules(), ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/rules/{id}", id: "get-rule", tag: tag, may: citywarden.MayRead,
		summary: "One rule with its text"}, s.getRule)
}

func (s *server) getRule(_ context.Context, in *struct {
	ID citywarden.RuleID `path:"id" maxLength:"200"`
}) (*output[citywarden.Rule], error) {
	rs := s.Rules.Rules()
	i := slices.IndexFunc(rs, func(r citywarden.Rule) bool { return r.ID == in.ID })
	if i < 0 {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no rule %s", in.ID)
	}
	return outputOf(rs[i]), nil
}
