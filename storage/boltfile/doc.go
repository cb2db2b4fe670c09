// Package boltfile reads the files of bbolt, of its format version 2, without
// bbolt, which panics on pages that make no sense, or never comes back; and when it
// opens a file for writing it does so in a goroutine where nobody can recover.
//
// [Check] and [CheckBranches] tell whether bbolt may be let at a file. A [Walk]
// takes what can still be had of one that is damaged. Nothing here knows what the
// keys and values mean.
package boltfile
