package config

import (
	"reflect"
	"strings"
)

// A field is one setting of a struct as the file names it.
type field struct {
	name  string
	value reflect.Value
}

// fields lists the settings of a struct in their order; those of embedded
// structs count as its own.
func fields(v reflect.Value) []field {
	var all []field
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" {
			all = append(all, fields(v.Field(i))...)
			continue
		}
		all = append(all, field{name, v.Field(i)})
	}
	return all
}

// join puts the name of a setting behind the path that it is in.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// paths lists the paths of all settings; those of list elements have the number
// 0: auth.api_keys.0.name.
func paths() []string {
	var all []string
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch {
		case v.Kind() == reflect.Struct:
			for _, f := range fields(v) {
				walk(join(path, f.name), f.value)
			}
		case isStructs(v.Type()):
			walk(join(path, "0"), reflect.New(v.Type().Elem()).Elem())
		default:
			all = append(all, path)
		}
	}
	walk("", reflect.ValueOf(Config{}))
	return all
}

// defaulted is an element of a list that has defaults.
type defaulted interface{ setDefaults() }

// setDefaults gives a new element of a list its defaults, if it has any.
func setDefaults(v reflect.Value) {
	if d, ok := reflect.TypeAssert[defaulted](v.Addr()); ok {
		d.setDefaults()
	}
}

func isStructs(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// variable returns the name of a path's environment variable.
func variable(path string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// nearest returns the candidate that a misspelled word most likely stands for,
// or "" if none is near. The first of equals wins.
func nearest(word string, candidates []string) string {
	best, least := "", len(word)/3+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least || (d == least && best == "") {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	next := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
