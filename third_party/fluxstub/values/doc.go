// Package values is empty; it is here so that go mod tidy finds it (see package flux).
package values
