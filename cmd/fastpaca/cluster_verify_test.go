package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudgeGroup(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		replicas []replicaState
		equal    bool
		again    bool
		problem  string
	}{
		"equal":           {[]replicaState{{"a", 7, "x", ""}, {"b", 7, "x", ""}, {"c", 7, "x", ""}}, true, false, ""},
		"one replica":     {[]replicaState{{"a", 7, "x", ""}}, true, false, ""},
		"other index":     {[]replicaState{{"a", 7, "x", ""}, {"b", 8, "y", ""}}, false, true, "same index"},
		"differ":          {[]replicaState{{"a", 7, "x", ""}, {"b", 7, "y", ""}}, false, false, "differ"},
		"the third":       {[]replicaState{{"a", 7, "x", ""}, {"b", 7, "x", ""}, {"c", 7, "y", ""}}, false, false, "differ"},
		"no answer":       {[]replicaState{{"a", 7, "x", ""}, {Node: "b", Error: "gone"}}, false, true, "did not answer"},
		"nobody has any":  {nil, false, false, "not placed"},
		"no answer first": {[]replicaState{{Node: "a", Error: "gone"}, {"b", 7, "x", ""}, {"c", 8, "x", ""}}, false, true, "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := groupState{Replicas: tc.replicas}
			require.Equal(t, tc.again, s.judge())
			require.Equal(t, tc.equal, s.Equal)
			require.Contains(t, s.Problem, tc.problem)
		})
	}
}

func TestVerifyReportFailsOnAnyProblem(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	conf := clusterVerifyConfig{Cluster: clusterConfig{Output: outputTable}}
	require.NoError(t, conf.print(&out, &verifyReport{Groups: 2, Equal: 2, Replicas: 6}))
	require.Contains(t, out.String(), "2 of 2 groups equal")
	out.Reset()
	broken := verifyReport{Groups: 2, Equal: 1, Replicas: 6, Problems: []groupState{{Group: 9, Problem: "replicas differ", Replicas: []replicaState{{"a", 7, "x", ""}}}}}
	require.ErrorContains(t, conf.print(&out, &broken), "1 of 2 groups")
	require.Contains(t, out.String(), "group 9: replicas differ")
	conf.Cluster.Output = outputJSON
	require.Error(t, conf.print(&out, &broken))
	require.Contains(t, out.String(), `"group": 9`)
}

func TestVerifyRefusesABadCall(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), []string{"fastpaca", "cluster", "verify", "--control", "nowhere", "-o", "yaml", "--timeout", "0s"}, &out, &errs))
	require.Contains(t, errs.String(), "--output")
	require.Contains(t, errs.String(), "--timeout")
	require.Contains(t, errs.String(), "nowhere")
}
