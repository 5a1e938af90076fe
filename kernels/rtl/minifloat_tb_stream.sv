// Streams vectors into an AXI-Stream design and compares what comes back, with pseudo-random gaps on both sides.
//
// in.hex: one word a beat, bit IN_W is tlast. out.hex: one word a beat, bit OUT_W is tlast.
module minifloat_tb_stream #(
    parameter IN_W = 8,
    parameter OUT_W = 8,
    parameter IN_BEATS = 1,
    parameter OUT_BEATS = 1,
    parameter TIMEOUT = 1000000
) (
    output logic clk_o,
    output logic rst_no,
    output logic [IN_W-1:0] s_tdata_o,
    output logic s_tvalid_o,
    output logic s_tlast_o,
    input  logic s_tready_i,
    input  logic [OUT_W-1:0] m_tdata_i,
    input  logic m_tvalid_i,
    input  logic m_tlast_i,
    output logic m_tready_o
);
  logic [IN_W:0] stimulus[0:IN_BEATS-1];
  logic [OUT_W:0] expected[0:OUT_BEATS-1];
  logic [31:0] noise;
  logic taken;
  integer sent;
  integer got;
  integer clocks;

  initial begin
    $readmemh("in.hex", stimulus);
    $readmemh("out.hex", expected);
    noise = 32'h1;
    sent = 0;
    got = 0;
    clocks = 0;
    clk_o = 1'b0;
    rst_no = 1'b0;
    s_tvalid_o = 1'b0;
    s_tlast_o = 1'b0;
    s_tdata_o = 0;
    m_tready_o = 1'b0;
    repeat (4) begin
      #5 clk_o = 1'b1;
      #5 clk_o = 1'b0;
    end
    rst_no = 1'b1;
    while (got < OUT_BEATS && clocks < TIMEOUT) begin
      noise = {noise[30:0], noise[31] ^ noise[21] ^ noise[1] ^ noise[0]};
      if (!s_tvalid_o && sent < IN_BEATS && noise[3:0] != 0) begin
        s_tvalid_o = 1'b1;
        s_tdata_o = stimulus[sent][IN_W-1:0];
        s_tlast_o = stimulus[sent][IN_W];
      end
      m_tready_o = noise[6:5] != 0;
      #4;
      taken = s_tvalid_o & s_tready_i;
      if (m_tvalid_i & m_tready_o) begin
        if ({m_tlast_i, m_tdata_i} !== expected[got]) begin
          $display("FAIL output %0d: got %h, expected %h (top bit: tlast)", got, {m_tlast_i, m_tdata_i}, expected[got]);
          $fatal(1);
        end
        got = got + 1;
      end
      #1 clk_o = 1'b1;
      #5 clk_o = 1'b0;
      if (taken) begin
        sent = sent + 1;
        s_tvalid_o = 1'b0;
      end
      clocks = clocks + 1;
    end
    if (got < OUT_BEATS) begin
      $display("FAIL: %0d of %0d outputs after %0d clocks", got, OUT_BEATS, clocks);
      $fatal(1);
    end
    $display("PASS: %0d outputs, 0 differences, %0d clocks", got, clocks);
    $finish;
  end
endmodule
