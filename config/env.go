package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const prefix = "TIDEWIRE_"

// FileVariable names the variable that holds the path of the configuration
// file.
const FileVariable = prefix + "CONFIG"

// others are variables of ours that are no settings of the broker: those of the
// client commands and of the tests. A name that ends in '_' is a prefix.
var others = []string{FileVariable, prefix + "SERVER", prefix + "TOKEN", prefix + "MSG_", prefix + "SOAK", prefix + "TEST_"}

// kubernetes matches the variables that Kubernetes puts into every container for
// a service named tidewire, or tidewire-something. Nobody typed them, so they
// are no mistake.
var kubernetes = regexp.MustCompile(`^[A-Z0-9_]+(_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)=|_PORT=[a-z]+://|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// numbered is the number in the name of a variable for a list element.
var numbered = regexp.MustCompile(`_([0-9]+)_`)

// readEnvironment sets in c what the variables, as os.Environ returns them,
// say. They are taken in the order of their names, numbers by value.
func (c *Config) readEnvironment(environment []string) error {
	ours := slices.DeleteFunc(slices.Clone(environment), func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return !strings.HasPrefix(name, prefix) || value == "" || isOther(name)
	})
	slices.SortStableFunc(ours, func(a, b string) int {
		if d := number(a) - number(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	known := make(map[string]string)
	for _, path := range paths() {
		known[variable(path)] = path
	}
	for _, v := range ours {
		name, value, _ := strings.Cut(v, "=")
		path, ok := known[numbered.ReplaceAllString(name, "_0_")]
		if !ok && kubernetes.MatchString(v) {
			continue
		}
		if !ok {
			return unknownVariable(name)
		}
		if err := c.setVariable(name, path, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func isOther(name string) bool {
	return slices.ContainsFunc(others, func(o string) bool {
		return name == o || (strings.HasSuffix(o, "_") && strings.HasPrefix(name, o))
	})
}

// number returns the number in the name of a variable; 0 if there is none.
func number(v string) int {
	name, _, _ := strings.Cut(v, "=")
	match := numbered.FindStringSubmatch(name)
	if match == nil {
		return 0
	}
	n, err := strconv.ParseUint(match[1], 10, 31)
	if err != nil {
		return 1<<31 - 1
	}
	return int(n)
}

// unknownVariable refuses to go on: a misspelled limit or secret would be
// missed in silence.
func unknownVariable(name string) error {
	var candidates []string
	for _, path := range paths() {
		candidates = append(candidates, strings.TrimPrefix(variable(path), prefix))
	}
	for _, o := range others {
		candidates = append(candidates, strings.TrimPrefix(o, prefix))
	}
	short := strings.TrimPrefix(name, prefix)
	near := nearest(short, candidates)
	for _, c := range candidates {
		if near == "" && strings.HasSuffix(c, "_"+short) {
			near = c
		}
	}
	if near != "" {
		return fmt.Errorf("there is no variable %s; did you mean %s?", name, prefix+near)
	}
	return fmt.Errorf("there is no variable %s; unset it, or see `tidewire config print` for the settings that exist", name)
}

// setVariable sets what is at path, whose 0 stands for the number in the name.
// A number right behind the last element of a list makes a new one.
func (c *Config) setVariable(name, path, value string) error {
	v := reflect.ValueOf(c).Elem()
	for part := range strings.SplitSeq(path, ".") {
		if v.Kind() != reflect.Slice {
			f, ok := find(fields(v), part)
			if !ok {
				return errors.New("there is no such setting") // cannot be: the path is one of paths
			}
			v = f.value
			continue
		}
		n := number(name)
		if n > v.Len() {
			return fmt.Errorf("the number is %d, but there are %d before; number them 0, 1, 2 and so on", n, v.Len())
		}
		if n == v.Len() {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
			setDefaults(v.Index(n))
		}
		v = v.Index(n)
	}
	if v.Kind() != reflect.Slice {
		return set(v, value)
	}
	list := reflect.MakeSlice(v.Type(), 0, 4)
	for element := range strings.SplitSeq(value, ",") {
		if element = strings.TrimSpace(element); element != "" {
			list = reflect.Append(list, reflect.ValueOf(element))
		}
	}
	v.Set(list)
	return nil
}
