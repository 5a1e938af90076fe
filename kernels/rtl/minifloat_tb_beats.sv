// Plays input words one a clock and compares the output words after each clock.
//
// in.hex: one IN_W-bit word a beat. out.hex: one word a beat, {mask, expected}: bits whose mask is 0 are not compared.
module minifloat_tb_beats #(
    parameter IN_W = 8,
    parameter OUT_W = 8,
    parameter BEATS = 1
) (
    output logic clk_o,
    output logic [IN_W-1:0] in_o,
    input  logic [OUT_W-1:0] out_i
);
  logic [IN_W-1:0] stimulus[0:BEATS-1];
  logic [2*OUT_W-1:0] expected[0:BEATS-1];
  logic [OUT_W-1:0] mask;
  integer beat;
  integer compared;

  initial begin
    $readmemh("in.hex", stimulus);
    $readmemh("out.hex", expected);
    compared = 0;
    clk_o = 1'b0;
    for (beat = 0; beat < BEATS; beat = beat + 1) begin
      in_o = stimulus[beat];
      #5 clk_o = 1'b1;
      #4;
      mask = expected[beat][2*OUT_W-1:OUT_W];
      if (mask != 0) compared = compared + 1;
      if (((out_i ^ expected[beat][OUT_W-1:0]) & mask) !== 0) begin
        $display("FAIL beat %0d: got %h, expected %h, mask %h", beat, out_i, expected[beat][OUT_W-1:0], mask);
        $fatal(1);
      end
      #1 clk_o = 1'b0;
    end
    $display("PASS: %0d beats, %0d compared, 0 differences", BEATS, compared);
    $finish;
  end
endmodule
