// Stream shell of a layer: takes a vector of activations, walks the weight memory once, and gives back one result a row.
//
// A vector arrives as BEATS beats of IN_W bits (last one with tlast). Then the shell issues ROWS * BEATS beats to the
// datapath, one a clock: weight_addr_o goes to a memory with one clock of latency, and in the next clock data_o, first_o
// and last_o belong to the word read. ROWS results come back in order, leave with tlast on the last, and only then is the
// next vector taken in. Worked example, ROWS = 2, BEATS = 2: in a0 a1(tlast); issued (w0,a0,first) (w1,a1,last)
// (w2,a0,first) (w3,a1,last); out r0 r1(tlast).
//
// Backpressure never stops the datapath: a row is issued only while fewer than 2**FIFO_BITS rows are issued and not yet
// taken by the receiver, so every result finds room.
module minifloat_layer_shell #(
    parameter ROWS = 2,
    parameter BEATS = 2,
    parameter IN_W = 8,
    parameter OUT_W = 8,
    parameter ROW_BITS = 1,   // holds ROWS - 1
    parameter BEAT_BITS = 1,  // holds BEATS - 1
    parameter ADDR_BITS = 2,  // holds ROWS * BEATS - 1
    parameter FIFO_BITS = 4
) (
    input  logic clk_i,
    input  logic rst_ni,
    // AXI-Stream of activations
    input  logic [IN_W-1:0] s_tdata_i,
    input  logic s_tvalid_i,
    input  logic s_tlast_i,
    output logic s_tready_o,
    // AXI-Stream of results
    output logic [OUT_W-1:0] m_tdata_o,
    output logic m_tvalid_o,
    output logic m_tlast_o,
    input  logic m_tready_i,
    // datapath
    output logic [ADDR_BITS-1:0] weight_addr_o,
    output logic [IN_W-1:0] data_o,
    output logic valid_o,
    output logic first_o,
    output logic last_o,
    input  logic result_valid_i,
    input  logic [OUT_W-1:0] result_i,
    output logic error_o  // a tlast was missing or early since reset
);

  localparam LAST_BEAT = BEATS - 1;
  localparam LAST_ROW = ROWS - 1;

  logic running_q;  // 0: a vector is coming in. 1: its rows are being issued
  logic [BEAT_BITS-1:0] beat_q;
  logic [ROW_BITS-1:0] row_q;
  logic [ADDR_BITS-1:0] addr_q;
  logic [FIFO_BITS:0] owed_q;  // rows issued and not yet taken by the receiver

  logic last_beat;
  logic take;
  logic issue;
  logic start_row;
  logic give;
  assign last_beat = beat_q == LAST_BEAT[BEAT_BITS-1:0];
  assign s_tready_o = ~running_q & rst_ni;
  assign take = s_tvalid_i & s_tready_o;
  assign issue = running_q & ((beat_q != 0) | ~owed_q[FIFO_BITS]);
  assign start_row = issue & (beat_q == 0);
  assign give = m_tvalid_o & m_tready_i;

  always_ff @(posedge clk_i) begin
    if (~rst_ni) begin
      running_q <= 1'b0;
      beat_q <= 0;
      row_q <= 0;
      addr_q <= 0;
      owed_q <= 0;
      error_o <= 1'b0;
    end else begin
      if (take | issue) beat_q <= last_beat ? 0 : beat_q + 1'b1;
      if (take & last_beat) running_q <= 1'b1;
      if (take & (s_tlast_i != last_beat)) error_o <= 1'b1;
      if (issue) addr_q <= addr_q + 1'b1;
      if (issue & last_beat) begin
        row_q <= row_q + 1'b1;
        if (row_q == LAST_ROW[ROW_BITS-1:0]) begin
          running_q <= 1'b0;
          row_q <= 0;
          addr_q <= 0;
        end
      end
      if (start_row & ~give) owed_q <= owed_q + 1'b1;
      if (give & ~start_row) owed_q <= owed_q - 1'b1;
    end
  end

  // The vector, read again for every row.
  logic [IN_W-1:0] vector[0:BEATS-1];
  always_ff @(posedge clk_i) begin
    if (take) vector[beat_q] <= s_tdata_i;
    data_o <= vector[beat_q];
    valid_o <= issue & rst_ni;
    first_o <= beat_q == 0;
    last_o <= last_beat;
  end
  assign weight_addr_o = addr_q;

  // Results wait here; the head is visible without a read clock.
  logic [OUT_W-1:0] fifo[0:(1<<FIFO_BITS)-1];
  logic [FIFO_BITS:0] put_q;
  logic [FIFO_BITS:0] got_q;
  logic [ROW_BITS-1:0] out_row_q;
  assign m_tvalid_o = put_q != got_q;
  assign m_tdata_o = fifo[got_q[FIFO_BITS-1:0]];
  assign m_tlast_o = out_row_q == LAST_ROW[ROW_BITS-1:0];
  always_ff @(posedge clk_i) begin
    if (result_valid_i) fifo[put_q[FIFO_BITS-1:0]] <= result_i;
    if (~rst_ni) begin
      put_q <= 0;
      got_q <= 0;
      out_row_q <= 0;
    end else begin
      if (result_valid_i) put_q <= put_q + 1'b1;
      if (give) begin
        got_q <= got_q + 1'b1;
        out_row_q <= m_tlast_o ? 0 : out_row_q + 1'b1;
      end
    end
  end
endmodule
