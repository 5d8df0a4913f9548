// Package console opens the web console of a cluster of real processes in a
// headless Chromium, uses it as an operator does, and looks at what it shows.
//
// It speaks as much of the DevTools protocol as that takes. Without a Chromium the
// suite says that it did not run; CHROMIUM names one that is not in the PATH.
// With SCREENSHOTS it leaves pictures in that directory, for people to look at.
package console
