// Package blackbox holds the suites that know nothing of the server but its
// contract: they start the built program, or take the URL of a running one,
// and speak HTTP to it. Nothing below this directory may import a package of
// the server, so a refactoring cannot make a suite agree with a mistake.
//
//   - process starts, watches and kills servers.
//   - client speaks the API and verifies what it reads.
//   - conformance holds the cases of the API contract, named by their numbers.
//   - faults kills, starves and corrupts servers, and counts what is left.
//   - cluster does the same to the processes of a whole cluster, under load.
//   - moves kills control members while replicas move, under load.
//   - streams follows conversations while routers and leaders die.
//   - archive kills servers, data nodes and PostgreSQL around the archive, and
//     changes rows by hand.
//   - backup takes backups under fire and restores them into other clusters.
//   - browser runs the TypeScript SDK, npm phoenix and a Chromium page.
//   - console opens the web console in Chromium while a cluster loses parts.
//   - readme runs the commands that README.md shows.
package blackbox
