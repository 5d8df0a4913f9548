package storage
import ("testing";"fmt";"os";"sync";"sync/atomic";"time";"math/rand/v2";"strings";"runtime";"runtime/debug";"encoding/binary"
"github.com/cockroachdb/pebble/v2";"github.com/cockroachdb/pebble/v2/sstable/block")
var words = strings.Fields("the agent will call tool search with query and then return result of function to user message assistant please summarise document error timeout value json array object string number true false null conversation session model prompt token context window retrieve embedding vector index database schema migration deploy server client request response stream event error retry backoff")
func msg(rng *rand.Rand, n int) []byte { var sb strings.Builder; sb.WriteString(`{"seq":123,"role":"assistant","parts":[{"type":"text","text":"`); for sb.Len()<n { sb.WriteString(words[rng.IntN(len(words))]); sb.WriteByte(' '); if rng.IntN(8)==0 { fmt.Fprintf(&sb,"%d ",rng.IntN(1e6)) } }; sb.WriteString(`"}],"metadata":{},"token_count":0,"inserted_at":"2026-01-01T00:00:00.000Z"}`); return []byte(sb.String()) }
func rss() int { b,_:=os.ReadFile("/proc/self/status"); for _,l:=range strings.Split(string(b),"\n"){ if strings.HasPrefix(l,"VmRSS"){ var k int; fmt.Sscanf(strings.TrimSpace(l[6:]),"%d",&k); return k/1024}}; return 0 }
func TestScratchTune(t *testing.T){
 debug.SetGCPercent(400)
 var mt int64 = 32<<20
 fmt.Sscan(os.Getenv("MT"), &mt)
 prof := os.Getenv("PROF")
 tweak = func(o *pebble.Options){
  if prof!="" { for i:=range o.Levels { p:=block.CompressionProfileByName(prof); o.Levels[i].Compression=func() *block.CompressionProfile{return p} } }
 }
 o:=DefaultOptions(t.TempDir()); o.MemTableBytes=mt
 e,err:=Open(o); if err!=nil{t.Fatal(err)}
 const N=600000
 var next atomic.Int64; var wg sync.WaitGroup
 b0:=&testing.B{}; _ = b0
 cpu:=cpuNow(); t0:=time.Now()
 var maxrss atomic.Int64
 for w:=range 64 { wg.Go(func(){
  rng:=rand.New(rand.NewPCG(uint64(w),1))
  pool:=make([][]byte,64); for i:=range pool{pool[i]=msg(rng,380)}
  var idx [4]uint64
  for next.Add(1)<=N {
   g:=rng.IntN(4); idx[g]++; i:=idx[g]; grp:=uint16(w*4+g)
   m:=pool[rng.IntN(64)]; copy(m[200:], fmt.Sprintf("%016x",rng.Uint64()))
   k:=binary.BigEndian.AppendUint64(AppendPrefix(nil,SpaceLog,grp),i)
   e.DB().Set(k,m,pebble.Sync)
   k=binary.BigEndian.AppendUint64(append(AppendPrefix(nil,SpaceMessage,grp),byte(rng.IntN(40))),i)
   bt:=e.DB().NewBatch(); bt.Set(k,m,nil); bt.Set(AppendPrefix(nil,SpaceMeta,grp),k[:8],nil); bt.Commit(pebble.NoSync); bt.Close()
   if i%1024==0 && i>1024 { e.DB().DeleteRange(AppendPrefix(nil,SpaceLog,grp), binary.BigEndian.AppendUint64(AppendPrefix(nil,SpaceLog,grp),i-512), pebble.NoSync) }
   if i%500==0 { r:=int64(rss()); if r>maxrss.Load(){maxrss.Store(r)} }
  }})}
 wg.Wait()
 el:=time.Since(t0); c:=cpuNow()-cpu
 m:=e.Metrics()
 var ms runtime.MemStats; runtime.ReadMemStats(&ms)
 fmt.Printf("MT=%d PROF=%q: %.0f/s cpu %.1fµs/append rss max %d now %d MB heap %d MB; disk %d MB, write-amp: flushed %d compacted %d MB L0 %d files, wal %d MB\n", mt>>20, prof, N/el.Seconds(), float64(c.Microseconds())/N, maxrss.Load(), rss(), ms.HeapInuse>>20, m.DiskSpaceUsage()>>20, m.Levels[0].TableBytesFlushed>>20, func() (s uint64){ for _,l:=range m.Levels { s+=l.TableBytesCompacted }; return s>>20 }(), m.Levels[0].TablesCount, m.WAL.BytesWritten>>20)
 t0=time.Now(); c0:=cpuNow(); n:=0
 it,_:=e.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{SpaceMessage}, UpperBound: []byte{SpaceMessage+1}}); for it.First();it.Valid();it.Next(){n+=len(it.Value())}; it.Close()
 fmt.Println("  scan", n>>20, "MB", time.Since(t0), "cpu", cpuNow()-c0)
 t0=time.Now(); e.Close(); fmt.Println("  close", time.Since(t0))
}
func cpuNow() time.Duration { return processCPU(nil) }
