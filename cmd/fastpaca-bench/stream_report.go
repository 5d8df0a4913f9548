package main

import (
	"fmt"
	"io"
)

// streamReport is the part of a report that the benchmarks of streams fill.
type streamReport struct {
	Delivery      []deliveryRun        `json:"delivery,omitempty"`
	Subscriptions []subscriptionResult `json:"subscriptions,omitempty"`
	Fanout        []fanoutRun          `json:"fanout,omitempty"`
	Replay        []replayRun          `json:"replay,omitempty"`
}

func (r *streamReport) print(w io.Writer) {
	if len(r.Delivery) > 0 {
		fmt.Fprintf(w, "\ndelivery, %d appends/s\tack p50 ms\tack p99 ms\tdelivered p50 ms\tdelivered p99 ms\tafter the ack p99 ms\tbefore the ack\trouter CPU µs\tserver CPU µs\n", openLoopRate)
		for i, run := range r.Delivery {
			fmt.Fprintf(w, "run %d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f %%\t%.0f\t%.0f\n", i+1, run.AckP50, run.AckP99,
				run.DeliveryP50, run.DeliveryP99, run.AfterAckP99, run.DeliveredFirst, run.RouterMicros, run.AllServersMicros)
		}
	}
	if len(r.Subscriptions) > 0 {
		fmt.Fprintf(w, "\nidle subscriptions\topen\tKB each\theap KB\tstacks KB\tdata node KB\t%% of a core\tnone open\topened/s\n")
		for _, s := range r.Subscriptions {
			fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\n", s.Transport, s.Subscriptions, s.KBEach,
				s.HeapKBEach, s.StackKBEach, s.DataKBEach, s.CorePercent, s.EmptyCorePercent, s.OpenedPerSecond)
		}
	}
	if len(r.Fanout) > 0 {
		fmt.Fprintf(w, "\nfanout\tframes/s\tper router core\tMB/s\trouter cores\tdata node cores\tclient cores\n")
		for _, run := range r.Fanout {
			fmt.Fprintf(w, "%d messages an append\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\n", run.Batch, run.FramesPerSec, run.FramesPerCore,
				run.MBPerSecond, run.RouterCores, run.DataCores, run.ClientCores)
		}
	}
	if len(r.Replay) > 0 {
		fmt.Fprintf(w, "\nreplay\tmessages/s\tper second of server CPU\tMB/s\tclient CPU µs\n")
		for _, run := range r.Replay {
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.2f\n", run.Transport, run.PerSecond, run.PerCore, run.MBPerSecond, run.ClientMicros)
		}
	}
}
