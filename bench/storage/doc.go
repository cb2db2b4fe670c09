// Command storage measures the log on disk and prints each figure beside a limit
// that was measured in the same minute on the same disk: the two take turns at
// least five times, and the table has the median and the spread.
//
// By default everything is a tenth of what the aims are about (1 million stored
// messages, 0.2 GB); -full has all of it and takes some minutes and 5 GB of disk.
package main
