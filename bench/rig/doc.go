// Package rig is what the measurements of more than one program need: a table of
// ratios with their aims, a session over a bare socket, and servers that are
// processes of their own, with what the system counts for them.
package rig
