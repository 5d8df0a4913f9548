package transport
import ("testing";"time";"fmt";"runtime";"sync";"sync/atomic";"os")
func TestZZIdle(t *testing.T){
 if os.Getenv("ZZ")=="" {t.Skip()}
 c := zzCluster(t)
 for g := range c.groups { id := c.ids[g%3]; c.replica(id,g).view.Campaign() }
 for g := range c.groups { c.apply(g,"x",c.ids...) }
 time.Sleep(2*time.Second)
 b := c.nodes["a"].Stats(); cpu := cpuTime(); 
 time.Sleep(5*time.Second)
 a := c.nodes["a"].Stats()
 t.Logf("idle: cpu %.1f%% of a core for 3 nodes, goroutines %d, conns %d, frames/s %d flushes/s %d", float64(cpuTime()-cpu)/5e9*100, runtime.NumGoroutine(), a.Connections,
  (a.Election.FramesOut+a.Append.FramesOut-b.Election.FramesOut-b.Append.FramesOut)/5,(a.Election.Flushes+a.Append.Flushes-b.Election.Flushes-b.Append.Flushes)/5)
 for _, clients := range []int{64,256} {
 var n atomic.Int64; var wg sync.WaitGroup; stop := make(chan struct{})
 b = c.nodes["a"].Stats(); cpu = cpuTime(); 
 for i := range clients { wg.Go(func(){ g := i%c.groups; data := make([]byte,400)
   for { select{case <-stop: return; default:}
    id := c.leader(g, c.ids...); if id=="" {continue}
    copy(data, fmt.Sprint(i,n.Load()))
    if c.replica(id,g).raft.Apply(append([]byte(nil),data...), time.Second).Error()==nil { n.Add(1)}}})}
 time.Sleep(3*time.Second); close(stop); wg.Wait()
 a = c.nodes["a"].Stats()
 el := a.Append.FramesOut-b.Append.FramesOut
 t.Logf("load %d: %d/s cpu/append %.1f us frames/flush %.1f bytes/frame %d reads %d", clients, n.Load()/3, float64(cpuTime()-cpu)/1e3/float64(n.Load()), float64(el)/float64(a.Append.Flushes-b.Append.Flushes), (a.Append.BytesOut-b.Append.BytesOut)/el, a.Append.Reads-b.Append.Reads)
 }
}
func zzCluster(t *testing.T) *cluster { 
	c := &cluster{t: t, net: newNetwork(t), ids: []string{"a", "b", "c"}, groups: 256, 
		nodes: map[string]*node{}, replicas: map[string][]*replica{}}
	for _, id := range c.ids { c.startNode(id) }
	for _, id := range c.ids {
		for _, other := range c.ids { c.nodes[id].SetAddress(other, c.nodes[other].addr) }
		for g := range c.groups { c.startReplica(id, g) }
	}
	t.Cleanup(func() { for _, id := range c.ids { c.kill(id) } })
	return c
}
